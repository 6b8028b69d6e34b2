"""The append-only journal: what has reached it survives kill -9 of the process that wrote it.

One line a record: eight hex digits of the payload's CRC-32, a space, the record as JSON, a newline.
A writer holds an flock on its `.open` file as long as it lives, so a file that can be locked has no writer.
"""

from __future__ import annotations

import fcntl
import itertools
import os
import secrets
import threading
import time
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import msgspec

from pawl.errors import LakeError
from pawl.lake.records import LakeRecord

OPEN = ".open"
SEALED = ".sealed"
HEAD = 9  # eight hex digits and a space

# One counter a process: two journals of one process never make the same segment name.
_sequence = itertools.count()
_encoder = msgspec.json.Encoder()
_decoder: msgspec.json.Decoder[LakeRecord] = msgspec.json.Decoder(LakeRecord)


class Segment(NamedTuple):
    """A parsed journal file. `torn`: its last line has no end (its writer died before acknowledging it)."""

    records: list[LakeRecord]
    corrupt: int  # whole lines that fail their checksum or are no record
    torn: bool
    bad: tuple[bytes, ...] = ()  # the corrupt lines as they stand


def encode_line(record: LakeRecord) -> bytes:
    """The journal line of a record."""
    payload = _encoder.encode(record)
    return b"%08x %s\n" % (zlib.crc32(payload), payload)


def parse(data: bytes) -> Segment:
    """All whole records in `data`; never raises, whatever the bytes are."""
    *lines, rest = data.split(b"\n")
    records: list[LakeRecord] = []
    bad: list[bytes] = []
    for line in lines:
        try:
            if int(line[: HEAD - 1], 16) != zlib.crc32(line[HEAD:]) or line[HEAD - 1 : HEAD] != b" ":
                raise ValueError("checksum")
            records.append(_decoder.decode(line[HEAD:]))
        except (ValueError, msgspec.MsgspecError, RecursionError):
            bad.append(line)
    return Segment(records, len(bad), bool(rest), tuple(bad))


def read_segment(path: Path) -> tuple[list[LakeRecord], int]:
    """The records of one journal file and the number of torn or corrupt lines that were skipped.

    FileNotFoundError where the file was sealed or ingested meanwhile; LakeError where it cannot be read.
    """
    segment = read_parsed(path)
    return segment.records, segment.corrupt + segment.torn


def read_parsed(path: Path) -> Segment:
    """As `read_segment`, telling torn from corrupt."""
    try:
        return parse(path.read_bytes())
    except FileNotFoundError:
        raise
    except OSError as e:
        raise LakeError(f"journal file {path.name} cannot be read ({e.strerror}); check its owner and mode") from e


def journalled(folder: Path) -> Iterator[LakeRecord]:
    """Everything that the journal in `folder` holds, of all its writers."""
    for path in [*folder.glob(f"*{OPEN}"), *folder.glob(f"*{SEALED}")]:
        for candidate in (path, path.with_suffix(SEALED)):  # it may be sealed between listing and reading
            try:
                yield from read_segment(candidate)[0]
                break
            except FileNotFoundError:
                continue


def seal_dead(folder: Path) -> int:
    """Seal the open files of writers that died; returns how many."""
    sealed = 0
    for path in sorted(folder.glob(f"*{OPEN}")):
        try:
            fd = os.open(path, os.O_RDONLY)
        except FileNotFoundError:
            continue
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_at(fd, path):
                path.rename(path.with_suffix(SEALED))
                sealed += 1
        except BlockingIOError:
            pass  # its writer lives
        except FileNotFoundError:
            pass  # somebody else sealed it first
        finally:
            os.close(fd)
    return sealed


def _is_at(fd: int, path: Path) -> bool:
    """Whether `path` still names the file that `fd` holds."""
    try:
        return os.path.samestat(os.fstat(fd), path.stat())
    except FileNotFoundError:
        return False


class Journal:
    """One writer's journal in `folder`. Safe for threads; any number of writers may share the folder.

    `sync`: "kernel" survives the death of the process, "fsync" also that of the machine.
    A segment is sealed when it holds `rotate_bytes` or is `rotate_s` old, and at `close`.
    """

    def __init__(
        self,
        folder: Path,
        writer: str,
        sync: Literal["kernel", "fsync"] = "kernel",
        rotate_bytes: int = 8 << 20,
        rotate_s: float = 30.0,
    ) -> None:
        self._folder = folder
        self._writer = f"{writer}.{os.getpid()}"  # two gateways started in one millisecond keep apart
        self._sync = sync
        self._rotate_bytes = rotate_bytes
        self._rotate_s = rotate_s
        self._lock = threading.Lock()
        self._fd = -1
        self._path = folder
        self._size = 0
        self._since = 0.0
        try:
            folder.mkdir(parents=True, exist_ok=True)
            seal_dead(folder)
        except OSError as e:
            raise LakeError(f"the journal folder {folder} cannot be used ({e.strerror}); check PAWL_HOME") from e

    def append(self, records: Sequence[LakeRecord]) -> None:
        """Write the group; when this returns, the kernel (or the disk) has all of it.

        LakeError where it cannot be written: then none of the group is in the journal.
        """
        self.append_lines(b"".join(map(encode_line, records)))

    def append_lines(self, data: bytes) -> None:
        """As `append`, of lines that `encode_line` made."""
        if not data:
            return
        with self._lock:
            try:
                if self._fd < 0:
                    self._start()
                self._write(data)
            except OSError as e:
                self._undo()
                raise LakeError(
                    f"the journal in {self._folder} cannot be written ({e.strerror}): free disk space there or "
                    "point PAWL_HOME at a larger disk; nothing of this request was recorded"
                ) from e
            self._size += len(data)
            if self._due():
                self._seal()

    def rotate_when_due(self) -> None:
        """Seal an old segment though nothing is appended; call it now and then."""
        with self._lock:
            if self._fd >= 0 and self._due():
                self._seal()

    def close(self) -> None:
        """Seal what is open. The journal may be appended to again."""
        with self._lock:
            if self._fd >= 0:
                self._seal()

    def _due(self) -> bool:
        return self._size >= self._rotate_bytes or time.monotonic() - self._since >= self._rotate_s

    def _start(self) -> None:
        while True:
            # The random part: on two machines writer, process id and millisecond may well be the same, and the lake
            # knows by its name what it has taken in.
            name = f"{self._writer}-{time.time_ns() // 1_000_000}-{next(_sequence)}-{secrets.token_hex(4)}{OPEN}"
            path = self._folder / name
            try:
                fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o600)
            except FileExistsError:
                continue
            fcntl.flock(fd, fcntl.LOCK_EX)
            if _is_at(fd, path):
                break
            os.close(fd)  # sealed, empty, by somebody who looked between its creation and the lock
        self._fd, self._path, self._size, self._since = fd, path, 0, time.monotonic()
        if self._sync == "fsync":
            sync_folder(self._folder)

    def _write(self, data: bytes) -> None:
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(self._fd, rest) :]
        if self._sync == "fsync":
            os.fsync(self._fd)

    def _undo(self) -> None:
        """Cut the torn part off, so that the next append starts on a clean line."""
        if self._fd < 0:
            return
        try:
            os.ftruncate(self._fd, self._size)
        except OSError:
            self._seal()  # the torn line stays the last of its segment, where readers expect one

    def _seal(self) -> None:
        fd, self._fd = self._fd, -1
        try:
            self._path.rename(self._path.with_suffix(SEALED))
        except OSError:
            pass  # without its lock the next start, or the next ingest, seals it
        finally:
            os.close(fd)


def sync_folder(folder: Path) -> None:
    """Make renames and new names in `folder` survive the loss of power."""
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
