"""The servers' logs: the end of one, following one, and keeping them from growing without bound."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

MOST_BYTES = 20 << 20
KEPT = 3  # older parts: NAME.log.1 is the newest of them
_BLOCK = 64 << 10


def tail(path: Path, lines: int) -> str:
    """The last lines of a file, "" where there is none; reads no more of it than it must."""
    if lines <= 0:
        return ""
    try:
        with path.open("rb") as file:
            at, data = file.seek(0, os.SEEK_END), b""
            while at > 0 and data.count(b"\n") <= lines:
                step = min(_BLOCK, at)
                at = file.seek(at - step)
                data = file.read(step) + data
    except OSError:
        return ""
    return "\n".join(data.decode(errors="replace").splitlines()[-lines:])


def follow(path: Path, ended: Callable[[], bool], every_s: float = 0.3) -> Iterator[str]:
    """What is written from now on; goes on when the file is cut off or made anew."""
    at = path.stat().st_size if path.exists() else 0
    while True:
        last = ended()
        try:
            size = path.stat().st_size
            at = 0 if size < at else at
            if size > at:
                with path.open("rb") as file:
                    file.seek(at)
                    data = file.read()
                at += len(data)
                yield data.decode(errors="replace")
        except OSError:
            at = 0
        if last:
            return
        time.sleep(every_s)


def rotate(path: Path, most_bytes: int = MOST_BYTES, kept: int = KEPT) -> bool:
    """Where the log is larger than that: copy it aside and cut it off; whether it was.

    Its writer keeps the file open in append mode and goes on at the new beginning. What is written between the last
    copied byte and the cut is lost; it is looked for again and again until nothing is left, so that is microseconds.
    """
    try:
        if path.stat().st_size <= most_bytes:
            return False
        for number in range(kept, 1, -1):
            older = _part(path, number - 1)
            if older.exists():
                older.replace(_part(path, number))
        with path.open("rb+") as file, _part(path, 1).open("wb") as copy:
            while True:
                shutil.copyfileobj(file, copy)
                if os.fstat(file.fileno()).st_size == file.tell():
                    file.truncate(0)
                    return True
    except OSError:
        return False  # a full disk: the log stays as it is


def _part(path: Path, number: int) -> Path:
    return path.with_name(f"{path.name}.{number}")
