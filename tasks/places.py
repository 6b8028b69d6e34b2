"""The workplace of a task, and its progress in Prefect's UI and on disk."""

from __future__ import annotations

import logging
import time
from pathlib import Path
from uuid import UUID

from httpx import HTTPError
from prefect import runtime
from prefect.artifacts import create_progress_artifact, update_progress_artifact
from prefect.client.orchestration import get_client
from prefect.exceptions import PrefectException

from pawl.improvement.workplace import Candidate, Workplace
from pawl.registry.approvals import starting_pointer
from pawl.rollout.control import SCHEDULE
from pawl.settings import Settings

log = logging.getLogger("pawl.progress")
EVERY_S = 2.0


def workplace(agent: str) -> Workplace:
    """The ports of this machine, for one agent."""
    return Workplace(Settings(), agent)


def candidate(place: Workplace, name: str) -> Candidate:
    """A candidate by its id."""
    return Candidate(place.settings.home / "candidates" / Path(name).name)


def starter(place: Workplace) -> str:
    """Who started this run: the key that `pawl improve` was called with, or the schedule; "" where nobody knows.

    Prefect's own UI and API do not say who asked for a run.
    """
    root = str(runtime.flow_run.root_flow_run_id or "")
    _, name = place.control.pointer(starting_pointer(root))
    if name or not root:
        return name
    with get_client(sync_client=True) as client:
        return SCHEDULE if client.read_flow_run(UUID(root)).auto_scheduled else ""


class Telling:
    """Progress to the file that terminals draw from and, every two seconds, to a Prefect artifact.

    A server that does not take it for once stops no work: it is said in the log, and the next step tries again.
    """

    def __init__(self, place: Workplace) -> None:
        self._file = place.progress
        self._artifact: UUID | None = None
        self._last = 0.0
        self._complained = False

    def __call__(self, name: str, done: int, total: int, note: str) -> None:
        self._file.write(name, done, total, note)
        if time.monotonic() - self._last < EVERY_S and done < total:
            return
        self._last = time.monotonic()
        percent = 100.0 * done / max(1, total)
        said = f"{name} {done}/{total} {note}".strip()
        try:
            if self._artifact is None:
                self._artifact = create_progress_artifact(progress=percent, description=said)
            else:
                update_progress_artifact(artifact_id=self._artifact, progress=percent, description=said)
        except (HTTPError, PrefectException) as e:
            if not self._complained:
                self._complained = True
                log.warning("progress cannot be shown in Prefect (%s); the work goes on", e)
