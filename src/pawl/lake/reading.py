"""Out of the lake: records, journal included; files and pending records for who queries them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pawl.lake.erased import sift
from pawl.lake.journal import journalled
from pawl.lake.manifest import Manifest
from pawl.lake.records import TABLES, Interaction, LakeRecord
from pawl.lake.shelf import Changed, Shelf


class Reading:
    """Takes no lock: what is taken away meanwhile is read by the next manifest."""

    def __init__(self, shelf: Shelf, journal: Path) -> None:
        self._shelf, self._journal = shelf, journal

    def records(self, kind: type[Any], agent: str, since: float | None, until: float | None) -> list[Any]:
        """Those with since <= at < until, each once, in order of time."""
        low, high = _span(since, until)
        # The journal first: what is ingested meanwhile is then seen twice rather than not at all.
        waiting = list(journalled(self._journal))
        while True:
            manifest, ids = self._shelf.now()
            self._shelf.forget(manifest)
            # All of the journal: what is said about an erased subject is known by the interactions beside it.
            fresh = sift(waiting, manifest.erased, ids)[0]
            found = {r.id: r for r in fresh if isinstance(r, kind) and r.agent == agent and low <= r.at < high}
            try:
                for entry in manifest.objects:
                    mine = (entry.table, entry.agent) == (TABLES[kind], agent)
                    if mine and entry.first < high and entry.last >= low:
                        found.update((row.id, row) for row in self._shelf.read(kind, entry) if low <= row.at < high)
            except Changed:  # compaction or erasure: the next manifest
                continue
            return sorted(found.values(), key=lambda r: (r.at, r.id))

    def agents(self) -> list[str]:
        """Every agent that anything is recorded of."""
        return sorted({o.agent for o in self.manifest().objects} | {r.agent for r in self.pending()})

    def manifest(self) -> Manifest:
        """What the lake holds now."""
        return self._shelf.manifests.read()

    def files(self, table: str, agent: str | None, since: float | None, until: float | None) -> list[Path]:
        """Local files of a table's objects that may hold such rows."""
        low, high = _span(since, until)
        while True:
            try:
                return [
                    self._shelf.fetch(o)
                    for o in self.manifest().objects
                    if o.table == table and agent in (None, o.agent) and o.first < high and o.last >= low
                ]
            except Changed:
                continue

    def pending(self) -> list[LakeRecord]:
        """What the journal holds and the lake does not yet, what was erased left out."""
        waiting = list(journalled(self._journal))
        manifest, ids = self._shelf.now()
        return sift(waiting, manifest.erased, ids)[0]

    def owners(self, ids: set[str]) -> dict[str, tuple[str, str, str]]:
        """id -> (agent, key, arm) of those interactions that exist; reads four columns and keeps nothing."""
        found = {r.id: (r.agent, r.key_id, r.arm) for r in self.pending() if isinstance(r, Interaction) and r.id in ids}
        while True:
            try:
                for entry in self.manifest().objects:
                    if entry.table == TABLES[Interaction] and len(found) < len(ids):
                        for row in self._shelf.columns(entry, ("id", "agent", "key_id", "arm"), ids):
                            found[row[0]] = row[1:]
                return found
            except Changed:
                continue


def _span(since: float | None, until: float | None) -> tuple[float, float]:
    return float("-inf") if since is None else since, float("inf") if until is None else until
