"""Batches: many requests at once, answered when there is room (OpenAI API reference, Batch).

A batch is a folder: `batch.json`, `output.jsonl` and `errors.jsonl`. A line is written when its answer is recorded,
so that a batch that was cut off, by kill -9 too, goes on with the lines that are missing. At most one line is asked
again for each call that was under way.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import logging
import os
import re
import secrets
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import msgspec
import orjson

from pawl.errors import ControlUnavailable
from pawl.gateway.api.files import Files, may_see, no_such
from pawl.gateway.wire import Refused
from pawl.rollout.control import ControlStore, Key

ENDPOINTS = ("/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/embeddings")
MAX_LINES = 50_000
BATCHES_AT_ONCE = 4
AT_ONCE = 8  # calls of one batch: the rest of the room is for clients who wait
WINDOW_S = 24 * 3600.0
_LOOK_S = 1.0
_LONGEST_PAUSE_S = 60.0
_NAME = re.compile(r"^batch_[0-9a-f]{24}$")
log = logging.getLogger("pawl.batches")
Status = Literal["in_progress", "finalizing", "completed", "expired", "cancelling", "cancelled", "failed"]
OPEN: tuple[Status, ...] = ("in_progress", "finalizing", "cancelling")
# (endpoint path, body, key, headers) -> (status, answer)
Ask = Callable[[str, dict[str, Any], Key, dict[str, str]], Awaitable[tuple[int, dict[str, Any]]]]


class Batch(msgspec.Struct, kw_only=True):
    """One batch as it stands."""

    id: str
    key: Key
    endpoint: str
    input_file_id: str
    status: Status
    created_at: int
    expires_at: int
    total: int
    completed: int = 0
    failed: int = 0
    output_file_id: str | None = None
    error_file_id: str | None = None
    ended_at: int | None = None
    metadata: dict[str, str] | None = None
    headers: dict[str, str] = {}  # x-pawl-... of the request that made it: they hold for each line

    def shown(self) -> dict[str, Any]:
        """As the API shows it."""
        ended = {f"{s}_at": None for s in ("completed", "failed", "expired", "cancelled")}
        if self.ended_at is not None:
            ended[f"{self.status}_at"] = self.ended_at  # type: ignore[assignment]
        return {
            "id": self.id,
            "object": "batch",
            "endpoint": self.endpoint,
            "input_file_id": self.input_file_id,
            "completion_window": "24h",
            "status": self.status,
            "created_at": self.created_at,
            "in_progress_at": self.created_at,
            "expires_at": self.expires_at,
            "finalizing_at": None,
            "cancelling_at": None,
            **ended,
            "output_file_id": self.output_file_id,
            "error_file_id": self.error_file_id,
            "errors": None,
            "request_counts": {"total": self.total, "completed": self.completed, "failed": self.failed},
            "metadata": self.metadata,
        }


class Batches:
    """Keeps batches and works them off; several gateways on one folder share the work, a batch each."""

    def __init__(self, folder: Path, files: Files, control: ControlStore, ask: Ask) -> None:
        self._folder, self._files, self._control, self._ask = folder, files, control, ask

    # -- what clients do

    def create(self, body: Any, key: Key, headers: dict[str, str]) -> Batch:
        """A new batch. Refused(400) names the first line of its file that is wrong."""
        if not isinstance(body, dict) or body.get("endpoint") not in ENDPOINTS:
            raise Refused(400, f"`endpoint` must be one of {', '.join(ENDPOINTS)}")
        if body.get("completion_window") != "24h":
            raise Refused(400, "`completion_window` must be `24h`")
        metadata = body.get("metadata")
        if metadata is not None and not (
            isinstance(metadata, dict) and all(isinstance(v, str) for v in metadata.values())
        ):
            raise Refused(400, "`metadata` must map names to texts")
        found = self._files.find(str(body.get("input_file_id")), key)
        total = len(read_lines(self._files.path(found.id).read_bytes(), body["endpoint"]))
        now = int(time.time())
        made = Batch(
            id=f"batch_{secrets.token_hex(12)}",
            key=key,
            endpoint=body["endpoint"],
            input_file_id=found.id,
            status="in_progress",
            created_at=now,
            expires_at=now + int(WINDOW_S),
            total=total,
            metadata=metadata,
            headers=headers,
        )
        (self._folder / made.id).mkdir(parents=True, mode=0o700)
        self._save(made)
        return made

    def find(self, batch_id: str, key: Key) -> Batch:
        """The batch with its counts. Refused(404) where there is none that this key may see."""
        if not _NAME.match(batch_id):
            raise no_such("batch", batch_id)
        try:
            found = self._load(self._folder / batch_id)
        except FileNotFoundError as e:
            raise no_such("batch", batch_id) from e
        if not may_see(key, found.key.id):
            raise no_such("batch", batch_id)
        if found.status in OPEN:
            done = self._done(self._folder / batch_id)
            found.completed, found.failed = sum(done.values()), len(done) - sum(done.values())
        return found

    def all(self, key: Key) -> list[Batch]:
        """The key's batches, newest first."""
        found = [self._load(p.parent) for p in self._folder.glob("batch_*/batch.json")]
        return sorted((b for b in found if may_see(key, b.key.id)), key=lambda b: (-b.created_at, b.id))

    def cancel(self, batch_id: str, key: Key) -> Batch:
        """No further line is begun."""
        found = self.find(batch_id, key)
        if found.status not in OPEN:
            raise Refused(409, f"{batch_id} is {found.status} already", code="conflict")
        (self._folder / batch_id / "cancel").touch()
        found.status = "cancelling"
        return found

    # -- the work

    async def work(self) -> None:
        """For ever: work open batches off, a few beside each other, oldest first."""
        running: dict[Path, asyncio.Task[None]] = {}
        try:
            while True:
                await asyncio.sleep(_LOOK_S)
                running = {folder: task for folder, task in running.items() if not task.done()}
                for folder in await asyncio.to_thread(self._open_ones):
                    if folder not in running and len(running) < BATCHES_AT_ONCE:
                        running[folder] = asyncio.create_task(self._hold(folder))
        finally:
            for task in running.values():
                task.cancel()

    async def _hold(self, folder: Path) -> None:
        try:
            with _claimed(folder) as mine:
                if mine:
                    await self._play(folder)
        except FileNotFoundError as e:
            log.error("%s cannot go on, its file is gone: %s", folder.name, e)
            self._end(folder, "failed")
        except Exception:  # a batch that cannot be worked off must not end the others
            log.exception("%s could not be worked off; trying again", folder.name)

    def _end(self, folder: Path, status: Status) -> None:
        batch = self._load(folder)
        batch.status, batch.ended_at = status, int(time.time())
        self._save(batch)

    def _open_ones(self) -> list[Path]:
        found = [(b.created_at, p.parent) for p in self._folder.glob("batch_*/batch.json")
                 if (b := self._load(p.parent)).status in OPEN]  # fmt: skip
        return [folder for _, folder in sorted(found)]

    async def _play(self, folder: Path) -> None:
        batch = self._load(folder)
        if batch.status not in OPEN:
            return
        lines = read_lines(self._files.path(batch.input_file_id).read_bytes(), batch.endpoint)
        done = self._done(folder, mend=True)
        waiting = [(custom, body) for custom, body in lines if custom not in done]
        turns = iter(waiting)
        with (
            (folder / "output.jsonl").open("ab", buffering=0) as good,
            (folder / "errors.jsonl").open("ab", buffering=0) as bad,
        ):

            async def caller() -> None:
                for custom, body in turns:
                    if (folder / "cancel").exists() or time.time() > batch.expires_at:
                        return
                    status, answer = await self._answer(batch, body, folder)
                    row = _row(custom, status, answer)
                    (good if status == 200 else bad).write(orjson.dumps(row) + b"\n")

            await asyncio.gather(*(caller() for _ in range(AT_ONCE)))
        await asyncio.to_thread(self._close, folder, batch)

    async def _answer(self, batch: Batch, body: dict[str, Any], folder: Path) -> tuple[int, dict[str, Any]]:
        """One line's answer; where there is no room or a limit is reached it waits its turn."""
        while True:
            if not await self._still_valid(batch.key):
                return 401, Refused(401, "the batch's key was revoked", "authentication_error").body()
            status, answer = await self._ask(batch.endpoint, body, batch.key, batch.headers)
            if status not in (429, 503) or time.time() > batch.expires_at or (folder / "cancel").exists():
                return status, answer
            wait = answer.pop("retry_after", 1.0)
            await asyncio.sleep(min(float(wait), _LONGEST_PAUSE_S))

    async def _still_valid(self, key: Key) -> bool:
        if key.id.startswith("oidc:"):
            return True
        try:
            known = await asyncio.to_thread(self._control.keys)
        except ControlUnavailable:  # it was valid when the batch was made; its next line asks again
            return True
        return any(k.id == key.id and not k.revoked for k in known)

    def _close(self, folder: Path, batch: Batch) -> None:
        done = self._done(folder)
        batch.completed, batch.failed = sum(done.values()), len(done) - sum(done.values())
        if len(done) == batch.total:
            batch.status = "completed"
        else:
            batch.status = "cancelled" if (folder / "cancel").exists() else "expired"
        batch.ended_at = int(time.time())
        for name, field in (("output.jsonl", "output_file_id"), ("errors.jsonl", "error_file_id")):
            if (folder / name).stat().st_size:
                copy = folder / f"{name}.kept"
                copy.write_bytes((folder / name).read_bytes())
                setattr(batch, field, self._files.keep(copy, name, "batch_output", batch.key.id).id)
        self._save(batch)

    def _done(self, folder: Path, *, mend: bool = False) -> dict[str, bool]:
        """custom_id -> whether it was answered. A torn last line does not count; who holds the batch cuts it off."""
        found: dict[str, bool] = {}
        for name, good in (("output.jsonl", True), ("errors.jsonl", False)):
            path = folder / name
            if not path.exists():
                continue
            data = path.read_bytes()
            whole = data.rfind(b"\n") + 1
            if whole != len(data) and mend:
                os.truncate(path, whole)
            found |= {orjson.loads(line)["custom_id"]: good for line in data[:whole].splitlines()}
        return found

    def _load(self, folder: Path) -> Batch:
        data = (folder / "batch.json").read_bytes()
        return msgspec.json.decode(data, type=Batch, dec_hook=_terms)

    def _save(self, batch: Batch) -> None:
        path = self._folder / batch.id / "batch.json"
        part = path.with_suffix(".part")
        part.write_bytes(msgspec.json.encode(batch, enc_hook=lambda spec: spec.model_dump(mode="json")))
        part.replace(path)


def read_lines(data: bytes, endpoint: str) -> list[tuple[str, dict[str, Any]]]:
    """(custom_id, body) of every line of a batch's input (pure). Refused(400) names the first that is wrong."""
    lines: dict[str, dict[str, Any]] = {}
    for n, line in enumerate(data.splitlines(), start=1):
        if not line.strip():
            continue
        try:
            row = orjson.loads(line)
        except orjson.JSONDecodeError as e:
            raise Refused(400, f"line {n} is not JSON: {e}") from e
        if not isinstance(row, dict) or not isinstance(row.get("body"), dict):
            raise Refused(400, f"line {n} must be an object with custom_id, method, url and body")
        custom = row.get("custom_id")
        if not isinstance(custom, str) or not custom or custom in lines:
            raise Refused(400, f"line {n}: custom_id must be a text that no other line has")
        if row.get("method") != "POST" or row.get("url") != endpoint:
            raise Refused(400, f"line {n}: method must be POST and url {endpoint}")
        if row["body"].get("stream"):
            raise Refused(400, f"line {n}: a batch cannot stream")
        lines[custom] = row["body"]
    if not 1 <= len(lines) <= MAX_LINES:
        raise Refused(400, f"a batch has 1 to {MAX_LINES} lines, this one {len(lines)}")
    return list(lines.items())


def _terms(kind: Any, value: Any) -> Any:
    return kind.model_validate(value)  # the key's terms are a pydantic model, which msgspec passes to its hook


def _row(custom: str, status: int, answer: dict[str, Any]) -> dict[str, Any]:
    identity = f"batch_req_{secrets.token_hex(12)}"
    response = {"status_code": status, "request_id": str(answer.get("id") or identity), "body": answer}
    return {"id": identity, "custom_id": custom, "response": response, "error": None}


@contextlib.contextmanager
def _claimed(folder: Path) -> Iterator[bool]:
    """Whether this process works on the batch; its lock falls with the process."""
    handle = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True
    finally:
        os.close(handle)
