"""Files that clients upload for batches (OpenAI API reference, Files), each under a name of its own on the disk."""

from __future__ import annotations

import os
import re
import secrets
import time
from pathlib import Path
from typing import Any

import msgspec
from python_multipart.multipart import MultipartParser, parse_options_header

from pawl.gateway.wire import Receive, Refused, Scope, header
from pawl.rollout.control import Key

MAX_FILE = 100 << 20
_NAME = re.compile(r"^file-[0-9a-f]{24}$")


class StoredFile(msgspec.Struct, frozen=True):
    """What is known of a file; its bytes lie beside it."""

    id: str
    bytes: int
    created_at: int
    filename: str
    purpose: str
    key_id: str
    object: str = "file"

    def shown(self) -> dict[str, Any]:
        """As the API shows it."""
        shown: dict[str, Any] = msgspec.to_builtins(self)
        del shown["key_id"]
        return shown | {"status": "processed"}


class Files:
    """One folder: `<id>` holds the bytes, `<id>.json` what is known of it, written last."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def path(self, file_id: str) -> Path:
        """Where the bytes lie. Refused(404) for a name that none of ours has."""
        if not _NAME.match(file_id):
            raise no_such("file", file_id)
        return self._folder / file_id

    def find(self, file_id: str, key: Key) -> StoredFile:
        """The file. Refused(404) where there is none that this key may see."""
        try:
            found = msgspec.json.decode(self.path(file_id).with_suffix(".json").read_bytes(), type=StoredFile)
        except FileNotFoundError as e:
            raise no_such("file", file_id) from e
        if not may_see(key, found.key_id):
            raise no_such("file", file_id)
        return found

    def all(self, key: Key) -> list[StoredFile]:
        """The key's files, newest first."""
        found = [msgspec.json.decode(p.read_bytes(), type=StoredFile) for p in self._folder.glob("file-*.json")]
        return sorted((f for f in found if may_see(key, f.key_id)), key=lambda f: (-f.created_at, f.id))

    def keep(self, temporary: Path, filename: str, purpose: str, key_id: str) -> StoredFile:
        """Take a finished file in."""
        made = StoredFile(
            f"file-{secrets.token_hex(12)}", temporary.stat().st_size, int(time.time()), filename, purpose, key_id
        )
        temporary.replace(self.path(made.id))
        _write_whole(self.path(made.id).with_suffix(".json"), msgspec.json.encode(made))
        return made

    def delete(self, file_id: str, key: Key) -> dict[str, Any]:
        """Forget a file."""
        found = self.find(file_id, key)
        self.path(found.id).with_suffix(".json").unlink(missing_ok=True)
        self.path(found.id).unlink(missing_ok=True)
        return {"id": found.id, "object": "file", "deleted": True}

    async def upload(self, scope: Scope, receive: Receive, key: Key) -> StoredFile:
        """Take a multipart upload with the fields `purpose` and `file` (RFC 7578). Refused where it is none."""
        kind, options = parse_options_header(header(scope, b"content-type") or "")
        if kind != b"multipart/form-data" or b"boundary" not in options:
            raise Refused(400, "send multipart/form-data with the fields `purpose` and `file`")
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        temporary = self._folder / f"upload-{secrets.token_hex(8)}.part"
        form = _Form(temporary)
        try:
            parser = MultipartParser(options[b"boundary"], form.callbacks())
            size, more = 0, True
            while more:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise Refused(400, "the client went away")
                part = message.get("body", b"")
                size += len(part)
                if size > MAX_FILE:
                    raise Refused(413, f"the file is larger than {MAX_FILE} bytes", code="request_too_large")
                parser.write(part)
                more = bool(message.get("more_body"))
            parser.finalize()
            form.close()
            if form.purpose != "batch" or form.filename is None:
                raise Refused(400, "the field `purpose` must be `batch`, and the field `file` a file")
            return self.keep(temporary, form.filename, form.purpose, key.id)
        except ValueError as e:  # MultipartParseError among them
            raise Refused(400, f"the upload is not well-formed multipart/form-data: {e}") from e
        finally:
            form.close()
            temporary.unlink(missing_ok=True)


class _Form:
    """Collects the two fields; the file goes to the disk as it comes."""

    def __init__(self, temporary: Path) -> None:
        self._out = os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb")
        self._field = self._value = b""
        self._header_name = self._header_value = b""
        self._name: str | None = None
        self.purpose: str | None = None
        self.filename: str | None = None

    def callbacks(self) -> Any:
        return {
            "on_part_begin": self._begin,
            "on_header_field": self._on_header_name,
            "on_header_value": self._on_header_value,
            "on_header_end": self._on_header_end,
            "on_part_data": self._data,
            "on_part_end": self._end,
        }

    def close(self) -> None:
        if not self._out.closed:
            self._out.close()

    def _begin(self) -> None:
        self._name, self._value = None, b""

    def _on_header_name(self, data: bytes, start: int, end: int) -> None:
        self._header_name += data[start:end]

    def _on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._header_value += data[start:end]

    def _on_header_end(self) -> None:
        if self._header_name.lower() == b"content-disposition":
            _, options = parse_options_header(self._header_value)
            self._name = options.get(b"name", b"").decode("utf-8", "replace")
            if self._name == "file":
                self.filename = options.get(b"filename", b"file").decode("utf-8", "replace")
        self._header_name = self._header_value = b""

    def _data(self, data: bytes, start: int, end: int) -> None:
        if self._name == "file":
            self._out.write(data[start:end])
        elif len(self._value) < 1000:
            self._value += data[start:end]

    def _end(self) -> None:
        if self._name == "purpose":
            self.purpose = self._value.decode("utf-8", "replace")


def may_see(key: Key, owner: str) -> bool:
    """A client sees its own; operators see everybody's."""
    return key.id == owner or key.role in ("operator", "admin")


def no_such(what: str, name: str) -> Refused:
    """One answer for what does not exist and for what is somebody else's."""
    return Refused(404, f"there is no {what} {name!r}", code="not_found")


def _write_whole(path: Path, data: bytes) -> None:
    part = path.with_suffix(".part")
    part.write_bytes(data)
    part.replace(path)
