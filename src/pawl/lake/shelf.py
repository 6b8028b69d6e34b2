"""Objects in and out of the store, and the manifest that lists them; taking in, reading and care stand on it."""

from __future__ import annotations

import fcntl
import hashlib
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from pawl.errors import LakeError
from pawl.lake.erased import ErasedIds
from pawl.lake.manifest import Change, Manifest, ManifestStore, Object, Removed
from pawl.lake.objects import FolderStore, ObjectStore
from pawl.lake.records import TABLES, LakeRecord

MOST_CACHED = 2_000_000  # decoded rows that are kept for the next reader


class Changed(Exception):
    """The manifest is no longer what this step was computed from: compute it again."""


class Shelf:
    """`root`: where files are made before they go into the store, and the lock of this machine."""

    def __init__(self, root: Path, store: ObjectStore, manifests: ManifestStore) -> None:
        self.root, self.store, self.manifests = root, store, manifests
        # Who writes into a folder holds its lock; who writes into another store may hold that of another machine.
        self.is_shared = not isinstance(store, FolderStore)
        self.cache: dict[str, list[Any]] = {}
        self._erased_ids = ("", ErasedIds())

    @contextmanager
    def locked(self) -> Iterator[None]:
        """One change at a time on this machine: its journal is here."""
        self.root.mkdir(parents=True, exist_ok=True)
        with (self.root / "lock").open("ab") as handle:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield

    # -- what there is

    def now(self) -> tuple[Manifest, ErasedIds]:
        """The manifest and the erased interactions that belong to it."""
        while True:
            manifest = self.manifests.read()
            name, held = manifest.erased_ids, self._erased_ids
            if held[0] == name:
                return manifest, held[1]
            try:
                self._erased_ids = (name, ErasedIds(self.store.fetch(name).read_bytes()) if name else ErasedIds())
            except OSError as e:
                if self.manifests.read().erased_ids == name:  # otherwise somebody was erased meanwhile
                    raise LakeError(f"{name}, who was erased, cannot be read: {e}; restore it from a copy") from e

    def fetch(self, entry: Object) -> Path:
        """Its local file. Changed where it is gone and listed no longer, LakeError where it should be there."""
        try:
            return self.store.fetch(entry.path)
        except FileNotFoundError as e:
            if any(o.path == entry.path for o in self.manifests.read().objects):
                raise LakeError(f"{entry.path}, an object of the lake, is gone; restore it from a copy") from e
            raise Changed from e

    def read(self, kind: type[Any], entry: Object, *, keep: bool = True) -> list[Any]:
        """The object's records, not to be changed. Raises as `fetch` does."""
        if entry.path not in self.cache:
            from pawl.lake import tables_pyarrow as tables

            rows = self._of_file(entry, lambda path: tables.read(kind, path))
            if not keep:
                return rows
            self.cache[entry.path] = rows  # objects never change
        return self.cache[entry.path]

    def columns(self, entry: Object, names: tuple[str, ...], ids: set[str] | None = None) -> list[tuple[Any, ...]]:
        """Those columns of the object, "id" first, of the rows with such an id or of all. Raises as `fetch` does."""
        from pawl.lake import tables_pyarrow as tables

        return self._of_file(entry, lambda path: tables.columns(path, names, ids))

    def _of_file(self, entry: Object, read: Callable[[Path], list[Any]]) -> list[Any]:
        path = self.fetch(entry)
        try:
            return read(path)
        except FileNotFoundError as e:
            raise Changed from e  # deleted a moment ago
        except (OSError, ValueError) as e:
            raise LakeError(f"{path} cannot be read: {e}; restore it from a copy") from e

    def forget(self, manifest: Manifest) -> None:
        """Drop what is listed no longer, and everything where too much is kept."""
        listed = {o.path for o in manifest.objects}
        for path in [p for p in self.cache if p not in listed]:
            self.cache.pop(path, None)
        if sum(map(len, list(self.cache.values()))) > MOST_CACHED:
            self.cache.clear()

    # -- what there is to be

    def write(self, records: Iterable[LakeRecord], *, bare: bool = False) -> list[Object]:
        """New objects with these records. Nobody sees them before a manifest lists them."""
        records = list(records)
        if not records:
            return []
        from pawl.lake import tables_pyarrow as tables

        objects = []
        for (kind, date, agent), rows in tables.partitions(records).items():
            with self._part() as part:
                try:
                    digest = tables.write(rows, part)
                except OSError as e:
                    raise self._full(e) from e
                name = f"{TABLES[kind]}/date={date}/agent={agent}/{digest}.parquet"
                self.store.put(name, part)
            objects.append(Object(name, TABLES[kind], agent, len(rows), rows[0].at, rows[-1].at, bare))
        return objects

    def write_erased(self, ids: ErasedIds) -> str:
        """The name of a new object with these."""
        name = f"erased/{hashlib.sha256(ids.data).hexdigest()[:16]}.ids"
        with self._part() as part:
            try:
                part.write_bytes(ids.data)
            except OSError as e:
                raise self._full(e) from e
            self.store.put(name, part)
        return name

    def change(self, change: Change) -> Manifest:
        """One atomic step."""
        return self.manifests.change(change)

    def replace(self, old: list[Object], new: list[Object], now: float) -> None:
        """List the new objects for the old ones. Changed where the old ones are not listed any more."""
        paths = {o.path for o in old} - {o.path for o in new}

        def swap(m: Manifest) -> Manifest:
            if not paths <= {o.path for o in m.objects}:
                raise Changed
            kept = tuple(o for o in m.objects if o.path not in paths)
            known = {o.path for o in kept}
            fresh = tuple(o for o in new if o.path not in known)
            removed = (*m.removed, *(Removed(p, now) for p in sorted(paths)))
            return msgspec.structs.replace(m, objects=(*kept, *fresh), removed=removed)

        self.change(swap)

    @contextmanager
    def _part(self) -> Iterator[Path]:
        """An empty file to write; it is gone afterwards."""
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            handle, name = tempfile.mkstemp(dir=self.root, suffix=".part")
        except OSError as e:
            raise self._full(e) from e
        os.close(handle)
        try:
            yield Path(name)
        finally:
            Path(name).unlink(missing_ok=True)

    def _full(self, e: OSError) -> LakeError:
        return LakeError(f"the lake cannot write in {self.root}: {e.strerror or e}; free disk space")


def with_objects(now: Manifest, objects: list[Object], before: Manifest) -> Manifest:
    """`now` with the objects. Changed where somebody was erased since `before`: they may hold what that took out."""
    if (now.erased, now.erased_ids) != (before.erased, before.erased_ids):
        raise Changed
    known = {o.path for o in now.objects}
    return msgspec.structs.replace(now, objects=(*now.objects, *(o for o in objects if o.path not in known)))


def with_erased_ids(now: Manifest, name: str, at: float) -> Manifest:
    """`now` with another object of erased interactions, the one before on its way out."""
    if name == now.erased_ids:
        return now
    old = (Removed(now.erased_ids, at),) if now.erased_ids else ()
    return msgspec.structs.replace(now, erased_ids=name, removed=(*now.removed, *old))
