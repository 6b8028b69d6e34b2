"""The workplace of a task, and its progress in Prefect's UI and on disk."""

from __future__ import annotations

import time
from pathlib import Path

from prefect.artifacts import create_progress_artifact, update_progress_artifact

from pawl.improvement.workplace import Candidate, Workplace
from pawl.settings import Settings


def workplace(agent: str) -> Workplace:
    """The ports of this machine, for one agent."""
    return Workplace(Settings(), agent)


def candidate(place: Workplace, name: str) -> Candidate:
    """A candidate by its id."""
    return Candidate(place.settings.home / "candidates" / Path(name).name)


class Telling:
    """Progress to the file that terminals draw from and, every few seconds, to a Prefect artifact."""

    def __init__(self, place: Workplace) -> None:
        self._file = place.progress
        self._artifact = None
        self._last = 0.0

    def __call__(self, name: str, done: int, total: int, note: str) -> None:
        self._file.write(name, done, total, note)
        if time.monotonic() - self._last < 5 and done < total:
            return
        self._last = time.monotonic()
        percent = 100.0 * done / max(1, total)
        if self._artifact is None:
            self._artifact = create_progress_artifact(progress=percent, description=f"{name} {note}".strip())
        else:
            update_progress_artifact(artifact_id=self._artifact, progress=percent, description=f"{name} {note}".strip())
