"""Into the lake: what the journal has sealed, and what is imported.

A segment goes from the journal into the lake in four steps, and a crash between any two of them loses and duplicates
nothing: objects are written; the manifest, which lists the objects and the segments in them, changes in one atomic
step; the segments are deleted; they are listed no longer. A segment that the manifest lists is only ever deleted.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from pathlib import Path

import msgspec

from pawl.lake.erased import sift
from pawl.lake.journal import SEALED, journalled, read_parsed, read_segment, seal_dead
from pawl.lake.manifest import Manifest
from pawl.lake.records import TABLES, LakeRecord, Observation
from pawl.lake.shelf import Changed, Shelf, with_erased_ids, with_objects

DAMAGED = ".damaged"  # lines of an ingested segment that cannot be read


class Intake:
    """The caller holds the shelf's lock."""

    def __init__(self, shelf: Shelf, journal: Path, checkpoint: Callable[[str], None]) -> None:
        self._shelf, self._journal, self._checkpoint = shelf, journal, checkpoint

    def ingest(self) -> int:
        """Move sealed segments into Parquet; returns the number of records moved."""
        while True:
            try:
                return self._ingest_once()
            except Changed:
                continue

    def _ingest_once(self) -> int:
        self._journal.mkdir(parents=True, exist_ok=True)
        seal_dead(self._journal)
        before, ids = self._shelf.now()
        # Of those that are not here, some are in other machines' journals: they stay listed.
        retired = {name for name in before.segments if self._retire(self._journal / name)}
        sealed = sorted(self._journal.glob(f"*{SEALED}"))
        if not sealed and not retired:
            return 0
        records = [r for path in sealed for r in read_segment(path)[0]]
        kept, gone = sift(records, before.erased, ids)
        self._checkpoint("read")
        objects = self._shelf.write(kept)
        # What is said about them later, in another journal, has to go as well.
        erased_ids = self._shelf.write_erased(ids.with_ids(gone)) if gone else before.erased_ids
        self._checkpoint("written")
        names = [p.name for p in sealed]

        def list_them(now: Manifest) -> Manifest:
            made = with_erased_ids(with_objects(now, objects, before), erased_ids, time.time())
            return msgspec.structs.replace(made, segments=_without(now.segments, {*retired, *names}) + tuple(names))

        self._shelf.change(list_them)
        self._checkpoint("committed")
        for path in sealed:
            self._retire(path)
        self._checkpoint("deleted")
        self._shelf.change(lambda now: msgspec.structs.replace(now, segments=_without(now.segments, set(names))))
        return len(records)

    @staticmethod
    def _retire(segment: Path) -> bool:
        """Whether it was here. It goes; its unreadable lines alone stay, for somebody to look at."""
        try:
            bad = read_parsed(segment).bad
            if bad:
                kept = segment.with_suffix(DAMAGED)
                kept.touch(0o600)
                kept.write_bytes(b"".join(line + b"\n" for line in bad))
            segment.unlink()
        except FileNotFoundError:
            return False
        return True

    def add(self, records: Iterable[LakeRecord]) -> int:
        """Put records from elsewhere into the lake; returns how many were new."""
        given = list(records)
        while True:
            try:
                return self._add_once(given)
            except Changed:
                continue

    def _add_once(self, given: list[LakeRecord]) -> int:
        before, ids = self._shelf.now()
        rows = self._unknown(sift(given, before.erased, ids)[0], before)
        if rows:
            objects = self._shelf.write(rows)
            self._shelf.change(lambda now: with_objects(now, objects, before))
        return len(rows)

    def _unknown(self, records: list[LakeRecord], manifest: Manifest) -> list[LakeRecord]:
        """Those that neither lake nor journal hold, whatever file they would be in by now; each once."""
        known: set[tuple[type, str]] = {(type(r), r.id) for r in journalled(self._journal)}
        fresh: dict[tuple[type, str], LakeRecord] = {}
        for r in records:
            if (type(r), r.id) not in known:
                fresh.setdefault((type(r), r.id), r)
        groups: dict[tuple[type[LakeRecord], str], list[LakeRecord]] = {}
        for r in fresh.values():
            groups.setdefault((type(r), r.agent), []).append(r)
        for (kind, agent), rows in groups.items():
            first, last, wanted = min(r.at for r in rows), max(r.at for r in rows), {r.id for r in rows}
            # Some load results do not say when they are from: what is told instead may differ the next time.
            is_undated = any(isinstance(r, Observation) and r.kind == "load" for r in rows)
            for o in manifest.objects:
                if (is_undated or (o.first <= last and o.last >= first)) and (o.table, o.agent) == (
                    TABLES[kind],
                    agent,
                ):
                    for (identity,) in self._shelf.columns(o, ("id",), wanted):
                        fresh.pop((kind, identity), None)
        return list(fresh.values())


def _without(segments: tuple[str, ...], gone: set[str]) -> tuple[str, ...]:
    return tuple(s for s in segments if s not in gone)
