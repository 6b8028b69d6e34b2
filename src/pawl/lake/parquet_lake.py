"""The lake: Parquet objects, each written once and named by content, listed in one manifest.

What the manifest does not list does not exist. How records come in and why none is lost or doubled: `intake`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from pathlib import Path

from pawl.lake.care import AUDIT_DAYS, GRACE_S, PAYLOAD_DAYS, Care
from pawl.lake.erased import ErasedIds
from pawl.lake.intake import Intake
from pawl.lake.manifest import FolderManifest, Manifest, ManifestStore
from pawl.lake.objects import FolderStore, ObjectStore
from pawl.lake.reading import Reading
from pawl.lake.records import Feedback, Interaction, LakeRecord, Observation
from pawl.lake.shelf import Shelf


class ParquetLake:
    """Interactions, feedback and observations of all agents, journal included. LakeError where it cannot be used."""

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
        self._shelf = Shelf(root, store or FolderStore(root), manifests or FolderManifest(root))
        self._intake = Intake(self._shelf, journal, checkpoint)
        self._reading = Reading(self._shelf, journal)
        self._care = Care(self._shelf, self._intake, journal)

    # -- in

    def ingest(self) -> int:
        """Move sealed segments of the journal into the lake; returns the number of records moved."""
        with self._shelf.locked():
            moved = self._intake.ingest()
            self._care.drop_copies(time.time())
            return moved

    def add(self, records: Iterable[LakeRecord]) -> int:
        """Put records from elsewhere (an import) into the lake; returns how many were new.

        The same again change nothing, and what was erased stays out.
        """
        with self._shelf.locked():
            return self._intake.add(records)

    # -- out

    def interactions(self, agent: str, since: float | None = None, until: float | None = None) -> list[Interaction]:
        """Interactions of an agent with since <= at < until, each once, in order of time."""
        return self._reading.records(Interaction, agent, since, until)

    def feedback(self, agent: str, since: float | None = None, until: float | None = None) -> list[Feedback]:
        """Feedback about an agent's interactions, by the time at which it came."""
        return self._reading.records(Feedback, agent, since, until)

    def observations(self, agent: str, since: float | None = None, until: float | None = None) -> list[Observation]:
        """What was learnt about the system under test, by the time at which it was."""
        return self._reading.records(Observation, agent, since, until)

    def agents(self) -> list[str]:
        """Every agent that anything is recorded of."""
        return self._reading.agents()

    def scratch(self) -> Path:
        """A folder on this machine for what a reader must put down for a while."""
        return self._shelf.root / "scratch"

    def manifest(self) -> Manifest:
        """What the lake holds now."""
        return self._reading.manifest()

    def erasures(self) -> tuple[Manifest, ErasedIds]:
        """What the lake holds now, and the interactions that were erased, by digest."""
        return self._shelf.now()

    def files(
        self, table: str, agent: str | None = None, since: float | None = None, until: float | None = None
    ) -> list[Path]:
        """Local files of a table's objects ("interactions", "feedback" or "observations") that may hold such rows."""
        return self._reading.files(table, agent, since, until)

    def pending(self) -> list[LakeRecord]:
        """What the journal holds and the lake does not yet, what was erased left out."""
        return self._reading.pending()

    def owners(self, ids: set[str]) -> dict[str, tuple[str, str, str]]:
        """id -> (agent, key, arm) of those interactions that exist; reads four columns and keeps nothing."""
        return self._reading.owners(ids)

    # -- care

    def compact(self, now: float) -> int:
        """Merge the files of each day and agent into one; returns how many went. Then sweep what is past its grace."""
        with self._shelf.locked():
            return self._care.compact(now)

    def expire(
        self, now: float, *, payload_days: float = PAYLOAD_DAYS, audit_days: float = AUDIT_DAYS
    ) -> tuple[int, int]:
        """Retention: (rows whose payload was taken out, rows dropped).

        After `payload_days` prompts, answers, details and reports go, figures stay; after `audit_days` the row too.
        """
        with self._shelf.locked():
            return self._care.expire(now, payload_days, audit_days)

    def erase(self, subject: str, now: float) -> list[str]:
        """Remove a person at once and for good; returns the ids of their interactions.

        A subject is a session, the OpenAI field `user`, `metadata.subject`, or who reported a bug. Their interactions
        go, all feedback about them, and their reports. What is still in the journal of a running gateway, or arrives
        late, is dropped when it is ingested, and read by nobody meanwhile.
        """
        with self._shelf.locked():
            return self._care.erase(subject, now)

    def sweep(self, now: float, grace_s: float = GRACE_S) -> None:
        """Delete objects that are listed no longer and whose grace is over, and what died writers left."""
        with self._shelf.locked():
            self._care.sweep(now, grace_s)
