"""One retrain of an agent at a time, and what a retrain that was cut off goes on with."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

from prefect import runtime
from prefect.client.orchestration import get_client
from prefect.logging import get_run_logger
from prefect.states import Cancelled

from pawl.fleet.data import DataSpec
from pawl.improvement import weekly
from pawl.improvement.retrain_lease import AlreadyRetraining, Retraining, WhenBusy
from pawl.improvement.steps import Window
from pawl.improvement.workplace import Workplace
from tasks.places import workplace

RESUMES = "resumes:"  # and an id, as a tag of a run that was started again
_first: dict[str, str] = {}
_held: dict[str, Retraining] = {}  # of this process: a flow that holds it calls another that asks for it


def root_run() -> str:
    """The id of the flow run that everything here belongs to; "" outside of a run."""
    return str(runtime.flow_run.root_flow_run_id or "")


def first_run() -> str:
    """The same, or where it was started again for one that crashed the id of that one, however often."""
    root = root_run()
    if root and root not in _first:
        with get_client(sync_client=True) as client:
            _first[root] = first_of(client.read_flow_run(UUID(root)).tags) or root
    return _first.get(root, "")


def first_of(tags: Iterable[str]) -> str:
    """The run that one with these tags was started again for; "" where it is the first (pure)."""
    return next((t.removeprefix(RESUMES) for t in tags if t.startswith(RESUMES)), "")


@contextmanager
def retraining(agent: str, when_busy: WhenBusy = "wait") -> Iterator[Retraining]:
    """Hold the agent's retrain. AlreadyRetraining where another run does and this one is not to wait.

    Left without an error, the retrain is done, and the next one prepares its own dataset.
    """
    if agent in _held:
        yield _held[agent]
        return
    control = workplace(agent).control
    with Retraining(control, agent, first_run() or uuid4().hex, when_busy, tell=get_run_logger().info) as lease:
        _held[agent] = lease
        try:
            yield lease
            if lease.is_held():
                weekly.forget_dataset(control, agent)
        finally:
            del _held[agent]


def cancelled(why: AlreadyRetraining) -> Any:
    """What a flow returns to end as Cancelled: Prefect takes a state that is returned for the run's end."""
    return Cancelled(message=str(why))


def prepared_once(place: Workplace, window: Window, spec: DataSpec, make: Callable[[], Path]) -> Path:
    """The dataset that this retrain had prepared before it was cut off, else what `make` makes."""
    agent = place.agent_name
    if agent not in _held:
        return make()
    begun = weekly.begun_dataset(place, window, spec, first_run())
    if begun is not None:
        get_run_logger().info("%s goes on with the dataset %s, prepared before it was cut off", agent, begun.stem)
        return begun
    made = make()
    weekly.keep_dataset(place, window, spec, first_run(), made)
    return made
