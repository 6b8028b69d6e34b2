"""Steps that are each tried whatever became of the others, and what failed, told at the end."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import NamedTuple, TypeVar

from prefect.exceptions import CancelledRun, PausedRun

from pawl.errors import PawlError

T = TypeVar("T")
log = logging.getLogger("pawl.promotion")


class Failure(NamedTuple):
    """A step of an agent that came to nothing, after all its tries."""

    agent: str
    step: str
    error: Exception


class Attempts:
    """One agent's trouble, or one step's, keeps none of the others from its turn."""

    def __init__(self) -> None:
        self._made = 0
        self._failures: list[Failure] = []

    def __call__(self, step: Callable[[str], T], agent: str) -> T | None:
        """What the step came to; None where it failed, which is in the log and told by `finish`."""
        self._made += 1
        try:
            return step(agent)
        except (CancelledRun, PausedRun):  # somebody's word about the run; all others of Prefect's are no Exception
            raise
        except Exception as e:
            name = str(getattr(step, "__name__", step))
            self._failures.append(Failure(agent, name, e))
            log.error("%s: %s failed, the steps after it are tried all the same: %s", agent, name, _said(e))
            return None

    def finish(self) -> None:
        """Raises PawlError where a step failed: it names agents, steps and reasons."""
        if self._failures:
            raise PawlError(told(self._failures, self._made)) from self._failures[0].error


def told(failures: list[Failure], made: int) -> str:
    """What people read of a run some of whose steps failed, one line for each reason of an agent (pure)."""
    steps: dict[tuple[str, str], list[str]] = {}
    for one in failures:
        steps.setdefault((one.agent, _said(one.error)), []).append(one.step)
    lines = [f"{agent}, {', '.join(names)}: {why}" for (agent, why), names in steps.items()]
    head = f"{len(failures)} of {made} steps failed; the others were done, and the next run tries these again:"
    return "\n".join([head, *lines])


def _said(error: Exception) -> str:
    return str(error) if isinstance(error, PawlError) else f"{type(error).__name__}: {error}"
