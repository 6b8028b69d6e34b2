"""The manifest: what the lake holds. What it does not list does not exist.

It is changed by one atomic step, from what it is at that moment: a file that is replaced under a lock, or, where the
objects lie in S3, an object of its own and a pointer to it in the control database, moved by compare-and-swap (no
S3 server's own preconditions are needed).
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import msgspec

from pawl.errors import LakeError, StaleWrite
from pawl.lake.journal import sync_folder
from pawl.lake.objects import ObjectStore

Change = Callable[["Manifest"], "Manifest"]


class Object(msgspec.Struct, frozen=True):
    """One Parquet file of the lake. Times are epoch seconds."""

    path: str
    table: str
    agent: str
    rows: int
    first: float
    last: float
    bare: bool = False  # retention has taken prompts, answers and details out


class Removed(msgspec.Struct, frozen=True):
    """An object that is listed no longer, and when: readers of the manifest before may still want it."""

    path: str
    at: float


class Erased(msgspec.Struct, frozen=True):
    """A subject that was erased. Records of it that arrive from before that moment are dropped."""

    sha256: str
    at: float


class Manifest(msgspec.Struct, frozen=True):
    """What the lake holds."""

    objects: tuple[Object, ...] = ()
    segments: tuple[str, ...] = ()  # ingested, perhaps not deleted yet
    removed: tuple[Removed, ...] = ()
    erased: tuple[Erased, ...] = ()
    erased_ids: str = ""  # the object with the digests of all erased interactions


class ManifestStore(Protocol):
    """LakeError where it cannot be read or written."""

    def read(self) -> Manifest: ...
    def change(self, change: Change) -> Manifest:
        """Apply `change` to the manifest as it is and keep the result; durable when this returns."""
        ...

    def sweep(self, before: float) -> None:
        """Delete manifests that were written before that moment and hold no longer."""
        ...


class FolderManifest:
    """One JSON file beside the objects."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def read(self) -> Manifest:
        path = self._root / "manifest.json"
        try:
            return msgspec.json.decode(path.read_bytes(), type=Manifest)
        except FileNotFoundError:
            return Manifest()
        except (OSError, msgspec.DecodeError) as e:
            raise LakeError(f"{path} cannot be read: {e}; restore it from a copy") from e

    def change(self, change: Change) -> Manifest:
        self._root.mkdir(parents=True, exist_ok=True)
        with (self._root / "manifest.lock").open("ab") as handle:
            fcntl.flock(handle, fcntl.LOCK_EX)
            made = change(self.read())
            part = self._root / "manifest.part"
            try:
                with part.open("wb") as out:
                    out.write(msgspec.json.encode(made))
                    out.flush()
                    os.fsync(out.fileno())
                part.replace(self._root / "manifest.json")
                sync_folder(self._root)
            except OSError as e:
                raise LakeError(f"the lake cannot write {part}: {e.strerror or e}; nothing was changed") from e
            return made

    def sweep(self, before: float) -> None:
        """There is only ever one."""


class Pointers(Protocol):
    """Named values with a revision; the control database has them."""

    def pointer(self, name: str) -> tuple[int, str]:
        """(revision, value); (0, "") before the first."""
        ...

    def move_pointer(self, name: str, revision: int, value: str) -> None:
        """Set it where `revision` is still current. StaleWrite otherwise."""
        ...


class PointedManifest:
    """The manifest as an object, and a pointer to the one that holds."""

    def __init__(self, store: ObjectStore, pointers: Pointers, name: str = "lake") -> None:
        self._store, self._pointers, self._name = store, pointers, name

    def read(self) -> Manifest:
        return self._current()[1]

    def change(self, change: Change) -> Manifest:
        while True:
            revision, before = self._current()
            made = change(before)
            data = msgspec.json.encode(made)
            name = f"manifests/{revision + 1:09}-{hashlib.sha256(data).hexdigest()[:16]}.json"
            handle, part = tempfile.mkstemp(prefix="manifest-")
            try:
                with os.fdopen(handle, "wb") as out:
                    out.write(data)
                self._store.put(name, Path(part))
            except OSError as e:
                raise LakeError(f"the lake cannot write {part}: {e.strerror or e}; nothing was changed") from e
            finally:
                Path(part).unlink(missing_ok=True)
            try:
                self._pointers.move_pointer(self._name, revision, name)
            except StaleWrite:
                continue  # somebody changed it meanwhile: again, from what it is now
            return made

    def sweep(self, before: float) -> None:
        written = [s.name for s in self._store.listed("manifests/") if s.at < before]
        # Read after the list was made: what the pointer has moved on to since is younger than the list.
        current = self._pointers.pointer(self._name)[1]
        for name in written if current else ():
            if name != current:
                self._store.delete(name)

    def _current(self) -> tuple[int, Manifest]:
        """(revision, manifest) as the pointer has them."""
        while True:
            revision, value = self._pointers.pointer(self._name)
            if not value:
                return revision, Manifest()
            try:
                return revision, msgspec.json.decode(self._store.fetch(value).read_bytes(), type=Manifest)
            except (OSError, msgspec.DecodeError) as e:
                if isinstance(e, FileNotFoundError) and self._pointers.pointer(self._name)[0] != revision:
                    continue  # replaced, and swept, between the two steps
                raise LakeError(f"the lake's manifest {value} cannot be read: {e}; restore it from a copy") from e
