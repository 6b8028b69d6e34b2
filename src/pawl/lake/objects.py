"""Where the lake's objects lie: the port, and the folder that is the default.

An object is written once under a name that its content gives, and never changed.
"""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple, Protocol

from pawl.errors import LakeError
from pawl.lake.journal import sync_folder


class Stored(NamedTuple):
    """One object as the store lists it."""

    name: str
    at: float  # epoch seconds at which it was written


class ObjectStore(Protocol):
    """LakeError where the store cannot be used; FileNotFoundError where an object is not there."""

    def put(self, name: str, source: Path) -> None:
        """Take the file `source` as that object; it is durable when this returns. The source is gone then."""
        ...

    def fetch(self, name: str) -> Path:
        """A local file with the object's bytes, not to be changed."""
        ...

    def delete(self, name: str) -> None:
        """Gone for good; nothing happens where it was not there."""
        ...

    def listed(self, prefix: str) -> list[Stored]:
        """The objects whose names begin so."""
        ...

    def drop_copies(self, but: Collection[str], before: float) -> None:
        """Of local copies of objects, those that are older than that moment (epoch seconds) and not among `but` go."""
        ...


class FolderStore:
    """Objects are files under one folder."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def put(self, name: str, source: Path) -> None:
        path = self._root / name
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with source.open("rb+") as handle:
                os.fsync(handle.fileno())
            source.replace(path)
            sync_folder(path.parent)
        except OSError as e:
            raise LakeError(f"the lake cannot write {path}: {e.strerror or e}; the journal keeps the records") from e

    def fetch(self, name: str) -> Path:
        path = self._root / name
        if not path.exists():
            raise FileNotFoundError(path)
        return path

    def delete(self, name: str) -> None:
        (self._root / name).unlink(missing_ok=True)

    def listed(self, prefix: str) -> list[Stored]:
        folder = self._root / prefix
        files = (p for p in folder.rglob("*") if p.is_file()) if folder.is_dir() else ()
        return [Stored(str(p.relative_to(self._root)), p.stat().st_mtime) for p in files]

    def drop_copies(self, but: Collection[str], before: float) -> None:
        """Nothing: the objects themselves are here."""
