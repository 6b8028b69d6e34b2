"""The lake on a folder: Parquet objects, each written once and named by content, listed in one manifest.

A segment goes from the journal into the lake in four steps, and a crash between any two of them loses and duplicates
nothing: objects are written beside their names and renamed; the manifest, which lists the objects and the segments in
them, is replaced atomically; the segments are deleted. What the manifest does not list does not exist, and a segment
that it lists is only ever deleted.
"""

from __future__ import annotations

import datetime as dt
import fcntl
import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from pawl.errors import LakeError
from pawl.lake.journal import OPEN, SEALED, read_parsed, read_segment, seal_dead, sync_folder
from pawl.lake.records import Feedback, Interaction, Record

Kind = TypeVar("Kind", Interaction, Feedback)
_TABLES: dict[type, str] = {Interaction: "interactions", Feedback: "feedback"}
DAMAGED = ".damaged"  # an ingested segment with lines that cannot be read
_NESTED = {"messages", "tool_calls", "task", "detail"}  # JSON text in Parquet: their shape is the client's


class Object(msgspec.Struct, frozen=True):
    """One Parquet file of the lake. Times are epoch seconds."""

    path: str
    table: str
    agent: str
    rows: int
    first: float
    last: float


class Manifest(msgspec.Struct, frozen=True):
    """What the lake holds."""

    objects: tuple[Object, ...] = ()
    segments: tuple[str, ...] = ()  # ingested, perhaps not deleted yet


class ParquetLake:
    """Interactions and feedback of all agents, journal included."""

    def __init__(self, root: Path, journal: Path, checkpoint: Callable[[str], None] = lambda step: None) -> None:
        self._root, self._journal, self._checkpoint = root, journal, checkpoint
        self._cache: dict[str, list[Any]] = {}

    def ingest(self) -> int:
        """Move sealed segments into Parquet; returns the number of records moved."""
        self._root.mkdir(parents=True, exist_ok=True)
        self._journal.mkdir(parents=True, exist_ok=True)
        with self._locked():
            seal_dead(self._journal)
            manifest = self._manifest()
            for name in manifest.segments:
                self._retire(self._journal / name)
            sealed = sorted(self._journal.glob(f"*{SEALED}"))
            records = [r for path in sealed for r in read_segment(path)[0]]
            self._checkpoint("read")
            objects = [self._write(key, rows) for key, rows in _partitions(records).items()]
            self._checkpoint("written")
            known = {o.path for o in manifest.objects}
            fresh = tuple(o for o in objects if o.path not in known)
            self._commit(Manifest((*manifest.objects, *fresh), tuple(p.name for p in sealed)))
            self._checkpoint("committed")
            for path in sealed:
                self._retire(path)
            self._checkpoint("deleted")
        return len(records)

    @staticmethod
    def _retire(segment: Path) -> None:
        """An ingested segment goes; one with unreadable lines stays under another name, for nobody to lose them."""
        try:
            if read_parsed(segment).corrupt:
                segment.rename(segment.with_suffix(DAMAGED))
            else:
                segment.unlink()  # a torn last line was never acknowledged
        except FileNotFoundError:
            pass

    def interactions(self, agent: str, since: float | None = None, until: float | None = None) -> list[Interaction]:
        """Interactions of an agent with since <= at < until, each once, in order of time."""
        return self._records(Interaction, agent, since, until)

    def feedback(self, agent: str, since: float | None = None, until: float | None = None) -> list[Feedback]:
        """Feedback about an agent's interactions, by the time at which it came."""
        return self._records(Feedback, agent, since, until)

    def _records(self, kind: type[Kind], agent: str, since: float | None, until: float | None) -> list[Kind]:
        low = float("-inf") if since is None else since
        high = float("inf") if until is None else until
        # The journal first: what is ingested meanwhile is then seen twice rather than not at all.
        found: dict[str, Kind] = {}
        for record in self._journalled():
            if isinstance(record, kind) and record.agent == agent and low <= record.at < high:
                found[record.id] = record
        for entry in self._manifest().objects:
            if entry.table == _TABLES[kind] and entry.agent == agent and entry.first < high and entry.last >= low:
                for row in self._read(kind, entry):
                    if low <= row.at < high:
                        found[row.id] = row
        return sorted(found.values(), key=lambda r: (r.at, r.id))

    def _journalled(self) -> Iterator[Record]:
        for path in [*self._journal.glob(f"*{OPEN}"), *self._journal.glob(f"*{SEALED}")]:
            for candidate in (path, path.with_suffix(SEALED)):  # it may be sealed between listing and reading
                try:
                    yield from read_segment(candidate)[0]
                    break
                except FileNotFoundError:
                    continue

    def _write(self, key: tuple[type, str, str], rows: list[Any]) -> Object:
        import pyarrow as pa
        import pyarrow.parquet as pq

        kind, date, agent = key
        rows = sorted({r.id: r for r in rows}.values(), key=lambda r: (r.at, r.id))
        plain = [
            {f: msgspec.json.encode(v).decode() if f in _NESTED else v for f, v in msgspec.to_builtins(r).items()}
            for r in rows
        ]
        digest = hashlib.sha256(msgspec.json.encode(plain)).hexdigest()[:16]
        table = _TABLES[kind]
        name = f"{table}/date={date}/agent={agent}/{digest}.parquet"
        path = self._root / name
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            part = path.with_suffix(f".{os.getpid()}.part")
            with part.open("wb") as out:
                pq.write_table(pa.Table.from_pylist(plain), out, compression="zstd")
                out.flush()
                os.fsync(out.fileno())  # the segment goes away once the manifest names this object
            part.replace(path)
            sync_folder(path.parent)
        except OSError as e:
            raise LakeError(f"the lake cannot write {path}: {e.strerror or e}; the journal keeps the records") from e
        return Object(name, table, agent, len(rows), rows[0].at, rows[-1].at)

    def _read(self, kind: type[Kind], entry: Object) -> list[Kind]:
        if entry.path not in self._cache:
            import pyarrow.parquet as pq

            try:
                rows = pq.ParquetFile(self._root / entry.path).read().to_pylist()
            except (OSError, ValueError) as e:
                raise LakeError(f"{self._root / entry.path} cannot be read: {e}; restore it from a copy") from e
            known = set(kind.__struct_fields__)
            # Objects never change, so what was decoded once is kept. Columns of older versions are filled by defaults.
            self._cache[entry.path] = [
                msgspec.convert(
                    {
                        f: msgspec.json.decode(v) if f in _NESTED else v
                        for f, v in row.items()
                        if f in known and not (f in _NESTED and v is None)
                    }
                    | {"record": row["record"]},
                    kind,
                )
                for row in rows
            ]
        return self._cache[entry.path]

    def _manifest(self) -> Manifest:
        path = self._root / "manifest.json"
        try:
            return msgspec.json.decode(path.read_bytes(), type=Manifest)
        except FileNotFoundError:
            return Manifest()
        except (OSError, msgspec.DecodeError) as e:
            raise LakeError(f"{path} cannot be read: {e}; restore it from a copy") from e

    def _commit(self, manifest: Manifest) -> None:
        part = self._root / "manifest.part"
        with part.open("wb") as out:
            out.write(msgspec.json.encode(manifest))
            out.flush()
            os.fsync(out.fileno())
        part.replace(self._root / "manifest.json")
        sync_folder(self._root)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        with (self._root / "lock").open("ab") as handle:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield


def _partitions(records: list[Record]) -> dict[tuple[type, str, str], list[Record]]:
    found: dict[Any, list[Record]] = {}
    for r in records:
        date = dt.datetime.fromtimestamp(r.at, dt.UTC).date().isoformat()
        found.setdefault((type(r), date, r.agent), []).append(r)
    return dict(sorted(found.items(), key=lambda kv: (kv[0][0].__name__, kv[0][1], kv[0][2])))
