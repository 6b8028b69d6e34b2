"""The lake: Parquet objects, each written once and named by content, listed in one manifest.

A segment goes from the journal into the lake in four steps, and a crash between any two of them loses and duplicates
nothing: objects are written; the manifest, which lists the objects and the segments in them, changes in one atomic
step; the segments are deleted. What the manifest does not list does not exist, and a segment that it lists is only
ever deleted.
"""

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
from pawl.lake.journal import OPEN, SEALED, read_parsed, read_segment, seal_dead
from pawl.lake.manifest import Erased, FolderManifest, Manifest, ManifestStore, Object, Removed
from pawl.lake.objects import FolderStore, ObjectStore
from pawl.lake.records import Feedback, Interaction, Record

DAMAGED = ".damaged"  # lines of an ingested segment that cannot be read
MOST_CACHED = 2_000_000  # decoded rows that are kept for the next reader
GRACE_S = 3600.0  # an object that is listed no longer stays so long, for who reads by the manifest before


class _Changed(Exception):
    """The manifest is no longer what this step was computed from."""


class ParquetLake:
    """Interactions and feedback of all agents, journal included."""

    def __init__(
        self,
        root: Path,
        journal: Path,
        checkpoint: Callable[[str], None] = lambda step: None,
        *,
        store: ObjectStore | None = None,
        manifests: ManifestStore | None = None,
    ) -> None:
        """`root`: the lake's folder; with another store, where files are made before they go there."""
        self._root, self._journal, self._checkpoint = root, journal, checkpoint
        self._store: ObjectStore = store or FolderStore(root)
        self._manifests: ManifestStore = manifests or FolderManifest(root)
        self._cache: dict[str, list[Any]] = {}

    # -- in

    def ingest(self) -> int:
        """Move sealed segments into Parquet; returns the number of records moved."""
        with self._locked():
            return self._ingest()

    def _ingest(self) -> int:
        while True:
            try:
                return self._ingest_once()
            except _Changed:
                continue

    def _ingest_once(self) -> int:
        self._journal.mkdir(parents=True, exist_ok=True)
        seal_dead(self._journal)
        manifest = self._manifests.read()
        for name in manifest.segments:
            self._retire(self._journal / name)
        sealed = sorted(self._journal.glob(f"*{SEALED}"))
        records = [r for path in sealed for r in read_segment(path)[0]]
        kept = _without_erased(records, manifest.erased)
        self._checkpoint("read")
        objects = self._write(kept)
        self._checkpoint("written")
        names = tuple(p.name for p in sealed)

        def list_them(now: Manifest) -> Manifest:
            # Of other machines' segments nothing is known here but that they were listed.
            others = tuple(s for s in now.segments if s not in manifest.segments and s not in names)
            return msgspec.structs.replace(_with(now, objects, manifest), segments=(*others, *names))

        self._manifests.change(list_them)
        self._checkpoint("committed")
        for path in sealed:
            self._retire(path)
        self._checkpoint("deleted")
        return len(records)

    @staticmethod
    def _retire(segment: Path) -> None:
        """An ingested segment goes; its unreadable lines alone stay, for somebody to look at."""
        try:
            bad = read_parsed(segment).bad
            if bad:
                kept = segment.with_suffix(DAMAGED)
                kept.touch(0o600)
                kept.write_bytes(b"".join(line + b"\n" for line in bad))
            segment.unlink()
        except FileNotFoundError:
            pass

    def add(self, records: Iterable[Record]) -> int:
        """Put records from elsewhere (an import) into the lake; returns how many. The same again change nothing."""
        given = list(records)
        with self._locked():
            while True:
                try:
                    return self._add_once(given)
                except _Changed:
                    continue

    def _add_once(self, given: list[Record]) -> int:
        before = self._manifests.read()
        rows = self._unknown(_without_erased(given, before.erased))
        objects = self._write(rows)
        self._manifests.change(lambda now: _with(now, objects, before))
        return len(rows)

    def _unknown(self, records: list[Record]) -> list[Record]:
        """Those that the lake does not hold yet, whatever file they would be in by now."""
        spans: dict[tuple[type, str], list[float]] = {}
        for r in records:
            spans.setdefault((type(r), r.agent), []).append(r.at)
        known = {
            (kind, row.id)
            for (kind, agent), times in spans.items()
            for row in self._records(kind, agent, min(times), max(times) + 1e-3)
        }
        return [r for r in records if (type(r), r.id) not in known]

    # -- out

    def interactions(self, agent: str, since: float | None = None, until: float | None = None) -> list[Interaction]:
        """Interactions of an agent with since <= at < until, each once, in order of time."""
        return self._records(Interaction, agent, since, until)

    def feedback(self, agent: str, since: float | None = None, until: float | None = None) -> list[Feedback]:
        """Feedback about an agent's interactions, by the time at which it came."""
        return self._records(Feedback, agent, since, until)

    def agents(self) -> list[str]:
        """Every agent that anything is recorded of."""
        listed = {o.agent for o in self._manifests.read().objects}
        return sorted(listed | {r.agent for r in self._journalled()})

    def manifest(self) -> Manifest:
        """What the lake holds now."""
        return self._manifests.read()

    def files(
        self, table: str, agent: str | None = None, since: float | None = None, until: float | None = None
    ) -> list[Path]:
        """Local files of a table's objects ("interactions" or "feedback") that may hold such rows; for queries."""
        low = float("-inf") if since is None else since
        high = float("inf") if until is None else until
        return [
            self._store.fetch(o.path)
            for o in self._manifests.read().objects
            if o.table == table and agent in (None, o.agent) and o.first < high and o.last >= low
        ]

    def pending(self) -> list[Record]:
        """What the journal holds and the lake does not yet, erased subjects left out."""
        manifest = self._manifests.read()
        return _without_erased(self._journalled(), manifest.erased)

    def _records(self, kind: type[Any], agent: str, since: float | None, until: float | None) -> list[Any]:
        low = float("-inf") if since is None else since
        high = float("inf") if until is None else until
        # The journal first: what is ingested meanwhile is then seen twice rather than not at all.
        journalled = [r for r in self._journalled() if isinstance(r, kind) and r.agent == agent]
        for attempt in (1, 2):
            manifest = self._manifests.read()
            self._forget(manifest)
            found = {r.id: r for r in _without_erased(journalled, manifest.erased) if low <= r.at < high}
            try:
                for entry in manifest.objects:
                    if (entry.table, entry.agent) == (_table(kind), agent) and entry.first < high and entry.last >= low:
                        found.update((row.id, row) for row in self._read(kind, entry) if low <= row.at < high)
                return sorted(found.values(), key=lambda r: (r.at, r.id))
            except FileNotFoundError as e:
                # Compaction or erasure took it away since the manifest was read; the new one does not list it.
                if attempt == 2:
                    raise LakeError(f"an object of the lake is gone: {e}; restore it from a copy") from e
        raise AssertionError("unreachable")

    def _journalled(self) -> Iterator[Record]:
        for path in [*self._journal.glob(f"*{OPEN}"), *self._journal.glob(f"*{SEALED}")]:
            for candidate in (path, path.with_suffix(SEALED)):  # it may be sealed between listing and reading
                try:
                    yield from read_segment(candidate)[0]
                    break
                except FileNotFoundError:
                    continue

    def _forget(self, manifest: Manifest) -> None:
        """Drop what is listed no longer, and everything where too much is kept."""
        listed = {o.path for o in manifest.objects}
        for path in [p for p in self._cache if p not in listed]:
            self._cache.pop(path, None)
        if sum(map(len, list(self._cache.values()))) > MOST_CACHED:
            self._cache.clear()

    def owners(self, ids: set[str]) -> dict[str, tuple[str, str, str]]:
        """id -> (agent, key, arm) of those interactions that exist; reads four columns and keeps nothing."""
        from pawl.lake import tables_pyarrow as tables

        found = {
            r.id: (r.agent, r.key_id, r.arm) for r in self._journalled() if isinstance(r, Interaction) and r.id in ids
        }
        for entry in self._manifests.read().objects:
            if entry.table == "interactions" and len(found) < len(ids):
                for identity, agent, key, arm in tables.columns(
                    self._store.fetch(entry.path), ("id", "agent", "key_id", "arm"), ids
                ):
                    found[identity] = (agent, key, arm)
        return found

    def _read(self, kind: type[Any], entry: Object) -> list[Any]:
        if entry.path not in self._cache:
            from pawl.lake import tables_pyarrow as tables

            path = self._store.fetch(entry.path)
            try:
                # Objects never change, so what was decoded once is kept.
                self._cache[entry.path] = tables.read(kind, path)
            except FileNotFoundError:
                raise
            except (OSError, ValueError) as e:
                raise LakeError(f"{path} cannot be read: {e}; restore it from a copy") from e
        return self._cache[entry.path]

    # -- care

    def compact(self, now: float) -> int:
        """Merge the files of each day and agent into one; returns how many went. Then sweep what is past its grace."""
        with self._locked():
            return self._compact(now)

    def _compact(self, now: float) -> int:
        groups: dict[tuple[str, str, str, bool], list[Object]] = {}
        for o in self._manifests.read().objects:
            groups.setdefault((o.table, _date(o), o.agent, o.bare), []).append(o)
        merged = 0
        for (_, _, _, bare), group in groups.items():
            if len(group) > 1:
                kind = _kind(group[0])
                rows = {row.id: row for o in group for row in self._read(kind, o)}
                self._replace(group, self._write(rows.values(), bare=bare), now)
                merged += len(group) - 1
        self._sweep(now, GRACE_S)
        return merged

    def expire(self, now: float, *, payload_days: float = 400, audit_days: float = 6 * 365.25) -> tuple[int, int]:
        """Retention: (rows whose payload was taken out, rows dropped).

        After `payload_days` prompts, answers and details go, figures stay; after `audit_days` the row goes too.
        """
        with self._locked():
            return self._expire(now, payload_days, audit_days)

    def _expire(self, now: float, payload_days: float, audit_days: float) -> tuple[int, int]:
        bared = dropped = 0
        for o in self._manifests.read().objects:
            if o.last < now - audit_days * 86_400:
                self._replace([o], [], now)
                dropped += o.rows
            elif not o.bare and o.last < now - payload_days * 86_400:
                kind = _kind(o)
                rows = [bare(row) for row in self._read(kind, o)]
                self._replace([o], self._write(rows, bare=True), now)
                bared += o.rows
        self._sweep(now, GRACE_S)
        return bared, dropped

    def erase(self, subject: str, now: float) -> list[str]:
        """Remove a person's interactions and all feedback about them, at once and for good; returns their ids.

        A subject is a session, the OpenAI field `user`, or `metadata.subject`. What is still in the journal of a
        running gateway, or arrives late, is dropped when it is ingested, and read by nobody meanwhile.
        """
        with self._locked():
            return self._erase(subject, now)

    def _erase(self, subject: str, now: float) -> list[str]:
        self._ingest()
        mark = Erased(subject_digest(subject), now)
        self._manifests.change(lambda m: msgspec.structs.replace(m, erased=(*m.erased, mark)))
        objects = self._manifests.read().objects
        gone: dict[str, None] = {}
        journalled = [r for r in self._journalled() if isinstance(r, Interaction)]
        for row in journalled:
            if _is_about(row, mark.sha256):
                gone[row.id] = None
        hit = []
        for o in objects:
            if o.table == "interactions":
                mine = [row.id for row in self._read(Interaction, o) if _is_about(row, mark.sha256)]
                gone.update(dict.fromkeys(mine))
                hit += [o] if mine else []
        hit += [
            o for o in objects if o.table == "feedback" and any(f.interaction in gone for f in self._read(Feedback, o))
        ]
        for o in hit:
            kind = _kind(o)
            rows = [r for r in self._read(kind, o) if (r.id if kind is Interaction else r.interaction) not in gone]
            self._replace([o], self._write(rows, bare=o.bare), now)
        self._sweep(now, 0.0)
        return list(gone)

    def sweep(self, now: float, grace_s: float = GRACE_S) -> None:
        """Delete objects that are listed no longer and whose grace is over."""
        with self._locked():
            self._sweep(now, grace_s)

    def _sweep(self, now: float, grace_s: float) -> None:
        manifest = self._manifests.read()
        listed = {o.path for o in manifest.objects}
        over = [r for r in manifest.removed if r.at <= now - grace_s]
        for r in over:
            if r.path not in listed:
                self._store.delete(r.path)
                self._cache.pop(r.path, None)
        if over:
            done = set(over)
            self._manifests.change(
                lambda m: msgspec.structs.replace(m, removed=tuple(r for r in m.removed if r not in done))
            )

    # -- plumbing

    def _replace(self, old: list[Object], new: list[Object], now: float) -> None:
        paths = {o.path for o in old} - {o.path for o in new}

        def swap(m: Manifest) -> Manifest:
            if not paths <= {o.path for o in m.objects}:
                raise LakeError("another machine changed the lake meanwhile; nothing was changed here: run it again")
            kept = tuple(o for o in m.objects if o.path not in paths)
            known = {o.path for o in kept}
            fresh = tuple(o for o in new if o.path not in known)
            removed = (*m.removed, *(Removed(p, now) for p in sorted(paths)))
            return msgspec.structs.replace(m, objects=(*kept, *fresh), removed=removed)

        self._manifests.change(swap)

    def _write(self, records: Iterable[Record], *, bare: bool = False) -> list[Object]:
        records = list(records)
        if not records:
            return []
        from pawl.lake import tables_pyarrow as tables

        objects = []
        for (kind, date, agent), rows in tables.partitions(records).items():
            try:
                self._root.mkdir(parents=True, exist_ok=True)
                handle, part = tempfile.mkstemp(dir=self._root, suffix=".part")
                os.close(handle)
                digest = tables.write(rows, Path(part))
            except OSError as e:
                raise LakeError(f"the lake cannot write in {self._root}: {e.strerror or e}; free disk space") from e
            name = f"{tables.TABLES[kind]}/date={date}/agent={agent}/{digest}.parquet"
            try:
                self._store.put(name, Path(part))
            finally:
                Path(part).unlink(missing_ok=True)
            objects.append(Object(name, tables.TABLES[kind], agent, len(rows), rows[0].at, rows[-1].at, bare))
        return objects

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """One ingestion at a time on this machine: its journal is here."""
        self._root.mkdir(parents=True, exist_ok=True)
        with (self._root / "lock").open("ab") as handle:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield


def _with(now: Manifest, objects: list[Object], before: Manifest) -> Manifest:
    """`now` with the objects. _Changed where a subject was erased since `before`: they may hold what it took out."""
    if now.erased != before.erased:
        raise _Changed
    known = {o.path for o in now.objects}
    return msgspec.structs.replace(now, objects=(*now.objects, *(o for o in objects if o.path not in known)))


def bare(record: Any) -> Any:
    """A record without what people wrote (pure)."""
    if isinstance(record, Interaction):
        return msgspec.structs.replace(record, messages=[], completion="", tool_calls=[], error=None, task={}, user="")
    return msgspec.structs.replace(record, detail={})


def subject_digest(subject: str) -> str:
    """How an erased subject is remembered: not by name."""
    return hashlib.sha256(subject.encode()).hexdigest()


def _is_about(made: Interaction, digest: str) -> bool:
    named = {made.session, made.user, str(made.task.get("subject", ""))} - {""}
    return any(subject_digest(n) == digest for n in named)


def _without_erased(records: Iterable[Record], erased: tuple[Erased, ...]) -> list[Record]:
    """What arrives late of an erased subject, and feedback about it in the same batch, is dropped."""
    rows = list(records)
    if not erased:
        return rows
    when = {e.sha256: e.at for e in erased}

    def is_gone(made: Interaction) -> bool:
        return any(_is_about(made, digest) and made.at <= at for digest, at in when.items())

    gone = {r.id for r in rows if isinstance(r, Interaction) and is_gone(r)}
    return [r for r in rows if (r.id if isinstance(r, Interaction) else r.interaction) not in gone]


def _table(kind: type[Any]) -> str:
    return "interactions" if kind is Interaction else "feedback"


def _kind(o: Object) -> type[Any]:
    return Interaction if o.table == "interactions" else Feedback


def _date(o: Object) -> str:
    return o.path.split("/")[1].removeprefix("date=")
