"""Progress of long work, written where another process can draw it."""

from __future__ import annotations

import time
from pathlib import Path

import msgspec


class Progress(msgspec.Struct, frozen=True):
    """How far a named piece of work is."""

    name: str
    done: int
    total: int
    note: str = ""
    at: float = 0.0


class ProgressFile:
    """One small file, replaced atomically and at most four times a second."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._last = 0.0

    def write(self, name: str, done: int, total: int, note: str = "") -> None:
        """Say how far it is; calls in quick succession are dropped, the last one never."""
        now = time.time()
        if done < total and now - self._last < 0.25:
            return
        self._last = now
        self.path.parent.mkdir(parents=True, exist_ok=True)
        part = self.path.with_suffix(".part")
        part.write_bytes(msgspec.json.encode(Progress(name, done, total, note, now)))
        part.replace(self.path)

    def read(self) -> Progress | None:
        """The latest state, None where there is none."""
        try:
            return msgspec.json.decode(self.path.read_bytes(), type=Progress)
        except (OSError, msgspec.DecodeError):
            return None
