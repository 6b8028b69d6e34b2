"""Which failures pass by themselves, and which come again however often one asks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Literal, TypedDict

from httpx import HTTPError
from prefect import Task
from prefect.client.schemas.objects import State, TaskRun
from pydantic import ValidationError

from pawl.errors import LakeError, PawlError, ResourceError, ServerNotUp, StaleWrite

Kind = Literal["passing", "unclear", "final"]

MINUTE_S = 60.0
HOUR_S = 3600.0

_PASSING = (ServerNotUp, StaleWrite, ResourceError, ConnectionError)
_FINAL = (ValidationError, TypeError, AttributeError, KeyError, ImportError, AssertionError)
_BUSY = (408, 425, 429)  # RFC 9110, RFC 8470, RFC 6585: the same request may succeed later


def kind_of(error: BaseException) -> Kind:
    """What to expect of a second try (pure).

    passing: a server that is down, busy or answers 5xx; a lost race. final: settings, data that was refused, a policy,
    a bug: the same comes out again. unclear: everything else, such as a disk that is full or work that took too long.
    """
    for cause in _chain(error):
        status = _status(cause)
        if status is not None:
            return "passing" if status >= 500 or status in _BUSY else "final"
        if isinstance(cause, _PASSING):
            return "passing"
        if isinstance(cause, LakeError):
            return "unclear"
        # A bare PawlError may hide what a server said: its cause is looked at.
        if isinstance(cause, _FINAL) or (isinstance(cause, PawlError) and type(cause) is not PawlError):
            return "final"
        if isinstance(cause, HTTPError):
            return "passing"
    return "final" if isinstance(error, PawlError) else "unclear"


def passes(task: Task[Any, Any], run: TaskRun, state: State[Any]) -> bool:
    """Prefect's `retry_condition_fn`: again as often as the task allows where it passes, once where nobody knows."""
    error = state.data
    if not isinstance(error, BaseException):
        return False
    kind = kind_of(error)
    return kind == "passing" or (kind == "unclear" and run.run_count <= 1)


class Again(TypedDict):
    """How often and when a task is tried again: what Prefect's `task` takes."""

    retries: int
    retry_delay_seconds: list[float]
    retry_jitter_factor: float
    retry_condition_fn: Callable[[Task[Any, Any], TaskRun, State[Any]], bool]


def _again(*delays_s: float) -> Again:
    return Again(
        retries=len(delays_s),
        retry_delay_seconds=list(delays_s),
        retry_jitter_factor=0.3,  # two runs that failed together part by this share of a delay
        retry_condition_fn=passes,
    )


PATIENT = _again(2.0, 8.0, 30.0, 60.0)  # a server that is started anew is back within two minutes
BRIEF = _again(2.0, 5.0)  # for what runs again within minutes: what lasts longer is the next run's business


def _chain(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    at: BaseException | None = error
    while at is not None and id(at) not in seen:
        yield at
        seen.add(id(at))
        at = at.__cause__ or (None if at.__suppress_context__ else at.__context__)


def _status(error: BaseException) -> int | None:
    """The HTTP status that a client's error carries: urllib's, httpx's, MLflow's."""
    answer = getattr(error, "response", None)
    asked = getattr(error, "get_http_status_code", None)
    found = getattr(answer, "status_code", None) if answer is not None else None
    if found is None and callable(asked):
        found = asked()
    if found is None:
        found = getattr(error, "code", None)
    return found if isinstance(found, int) and 100 <= found < 600 else None
