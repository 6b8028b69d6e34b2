"""Tasks that find runs without a process, by Prefect's own heartbeats, and start them again."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable
from contextlib import suppress
from typing import Any
from uuid import UUID

import msgspec
from prefect import task
from prefect.artifacts import create_table_artifact
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas import FlowRun
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterParentFlowRunId,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import State, StateType
from prefect.client.schemas.sorting import FlowRunSort
from prefect.events import emit_event
from prefect.events.filters import EventFilter, EventNameFilter, EventOccurredFilter, EventResourceFilter
from prefect.settings import get_current_settings
from prefect.states import Crashed, Scheduled
from prefect.types._datetime import from_timestamp

from pawl.bootstrap import control
from pawl.errors import StaleWrite
from pawl.improvement.crashed_runs import Patience, SeenRun, Verdict, silent_throughout, verdict
from pawl.registry.approvals import starting_pointer
from pawl.rollout.control import SCHEDULE
from pawl.settings import Settings
from tasks.retraining import RESUMES, first_of
from tasks.values import Value

# The others come by themselves: every minute, hour or day.
AGAIN = ("improve-fleet", "improve-agent", "search-settings", "report-month")
PENDING_S = 1800.0
WAITING_S = 90_000.0  # prefect.yaml has a cluster's worker wait a day for a training's pod
CLUSTERS = ("kubernetes",)  # types of pools whose runs wait for room
WITHIN_S = 86_400.0
LISTENING_GAP_S = 30.0  # without an answer of Prefect; what was silent then may only not have been heard
TIMES = "resumed-"  # and a number, as a tag
DONE = {"started-again", "given-up"}  # tags of crashed runs that are settled
log = logging.getLogger("pawl.crashed")


class Found(Value):
    """A run without a process, and what was done."""

    run: str
    name: str
    flow: str
    verdict: Verdict
    again: str = ""  # the run that goes on for it


@task
def crashed_runs(most: int) -> tuple[Found, ...]:
    """Runs of deployments that crashed within a day and are not settled."""
    with get_client(sync_client=True) as client:
        return _found(client, [StateType.CRASHED], _patience(0.0, most), time.time())


@task
def silent_runs(older_than_s: float, most: int) -> tuple[Found, ...]:
    """Runs of deployments that run, or are about to, and were not heard of for so long.

    Never shorter than two of Prefect's heartbeats (PREFECT_FLOWS_HEARTBEAT_FREQUENCY) and a bit. Where heartbeats are
    off no running one is named: a long one and a dead one look alike.
    """
    with get_client(sync_client=True) as client:
        return _found(client, [StateType.RUNNING, StateType.PENDING], _patience(older_than_s, most), time.time())


@task
def still_silent(found: tuple[Found, ...], for_s: float | None = None) -> tuple[Found, ...]:
    """Those that are not heard of either while this task listens, by default for a heartbeat and a minute.

    The minute is for those that lived through an outage of Prefect: their client pauses between its attempts.
    """
    every = _heartbeats() or 0
    since = time.time() - every  # nothing as young was there when they were found silent

    def lives(run: str) -> bool:
        now = client.read_flow_run(UUID(run))
        if now.state is None or not (now.state.is_running() or now.state.is_pending()):
            return True  # it ended, or was marked by somebody else
        return now.state.timestamp.timestamp() > since or _heartbeat(client, now.id, since) is not None

    with get_client(sync_client=True) as client:
        silent = silent_throughout(
            [one.run for one in found], lives, for_s=every + 60.0 if for_s is None else for_s, gap_s=LISTENING_GAP_S
        )
    if left := [one.name for one in found if one.run not in silent]:
        log.info("heard of again, or not to be told because Prefect stumbled: %s", ", ".join(left))
    return tuple(one for one in found if one.run in silent)


@task
def settle_crashed(found: Found) -> Found:
    """Mark the run and what it called as crashed; start it again with the same parameters, once, or say that it is
    given up.

    A new run and no retry of the old one: what a retry remembers of its parts lies where the dead process ran. What
    lasts (the dataset it had prepared, training's checkpoints, kept answers, registered versions) is found again.
    """
    with get_client(sync_client=True) as client:
        run = client.read_flow_run(UUID(found.run))
        if run.state is not None and not run.state.is_final():
            client.set_flow_run_state(run.id, _crashed(), force=False)
            run = client.read_flow_run(run.id)
        if run.state is None or not run.state.is_crashed():  # it ended by itself in this moment
            return found.model_copy(update={"verdict": "alive"})
        _mark_parts(client, [run.id])
        times = _times(run.tags)
        detail = {"flow": found.flow, "times": times, "parameters": run.parameters}
        if found.verdict == "give up":
            client.update_flow_run(run.id, tags={*run.tags, "given-up"})
            _tell("pawl.run.abandoned", run, detail)
            log.error("%s crashed %d times and is not started again; look at its log", run.name, times + 1)
            return found
        if found.verdict == "mark" or run.deployment_id is None:
            return found
        first = first_of(run.tags) or str(run.id)
        kept = {t for t in run.tags if t not in DONE and not t.startswith((RESUMES, TIMES))}
        again = client.create_flow_run_from_deployment(
            run.deployment_id,
            parameters=run.parameters,
            state=Scheduled(message=f"started again for {run.name}, which crashed"),
            tags={*kept, f"{RESUMES}{first}", f"{TIMES}{times + 1}"},
            idempotency_key=f"again-{run.id}",
        )
        _keep_starter(client, run, str(again.id))
        client.update_flow_run(run.id, tags={*run.tags, "started-again"})
        _tell("pawl.run.resumed", run, detail | {"again": str(again.id)})
        log.warning("%s crashed and was started again as %s", run.name, again.id)
        return found.model_copy(update={"again": str(again.id)})


@task
def show_crashed(settled: tuple[Found, ...]) -> tuple[Found, ...]:
    """A table in Prefect's UI where there was anything."""
    if settled:
        rows = [one.model_dump() for one in settled]
        create_table_artifact(key="crashed-runs", table=rows, description="Runs without a process, and what was done")
    return settled


def _heartbeats() -> int | None:
    """Seconds between two heartbeats of a run; None: there are none."""
    return get_current_settings().flows.heartbeat_frequency


def _patience(older_than_s: float, most: int) -> Patience:
    every = _heartbeats()
    return Patience(
        silent_s=None if every is None else max(older_than_s, 2.0 * every + 10),
        pending_s=max(older_than_s, PENDING_S),
        waiting_s=max(older_than_s, WAITING_S),
        within_s=WITHIN_S,
        most=most,
    )


def _found(client: SyncPrefectClient, states: list[StateType], patience: Patience, now: float) -> tuple[Found, ...]:
    flows = {f.id: f.name for f in client.read_flows()}
    clusters = {p.name for p in client.read_work_pools() if p.type in CLUSTERS}
    runs = client.read_flow_runs(
        flow_run_filter=FlowRunFilter(state=FlowRunFilterState(type=FlowRunFilterStateType(any_=states))),
        sort=FlowRunSort.START_TIME_DESC,
        limit=200,
    )
    found = []
    for run in runs:
        if run.deployment_id is None or DONE & set(run.tags):
            continue
        seen = _seen(client, run, flows.get(run.flow_id, ""), now - (patience.silent_s or 0.0))
        seen = msgspec.structs.replace(seen, in_cluster=run.work_pool_name in clusters)
        what = verdict(seen, now, patience, AGAIN)
        if what != "alive":
            found.append(Found(run=str(run.id), name=run.name, flow=seen.flow, verdict=what))
    return tuple(found)


def _seen(client: SyncPrefectClient, run: FlowRun, flow: str, since: float) -> SeenRun:
    assert run.state is not None
    heard = _heartbeat(client, run.id, since) if run.state.is_running() else None
    return SeenRun(
        id=str(run.id),
        flow=flow,
        state="running" if run.state.is_running() else "crashed" if run.state.is_crashed() else "pending",
        since=run.state.timestamp.timestamp(),
        heard=heard,
        times=_times(run.tags),
    )


def _heartbeat(client: SyncPrefectClient, run: UUID, since: float) -> float | None:
    """When it was last heard of, if that was after `since`."""
    page = client.read_events(
        EventFilter(
            occurred=EventOccurredFilter(since=from_timestamp(since)),
            event=EventNameFilter(name=["prefect.flow-run.heartbeat"]),
            resource=EventResourceFilter(id=[f"prefect.flow-run.{run}"]),
        ),
        limit=1,
    )
    return max((e.occurred.timestamp() for e in page.events), default=None)


def _mark_parts(client: SyncPrefectClient, parents: list[UUID]) -> None:
    """Runs that a dead one had called, down to the last."""
    open_ones = [StateType.RUNNING, StateType.PENDING]
    while parents:
        called = client.read_flow_runs(
            flow_run_filter=FlowRunFilter(parent_flow_run_id=FlowRunFilterParentFlowRunId(any_=parents)), limit=200
        )
        for run in called:
            if run.state is not None and run.state.type in open_ones:
                client.set_flow_run_state(run.id, _crashed())
        parents = [run.id for run in called]


def _keep_starter(client: SyncPrefectClient, run: FlowRun, again: str) -> None:
    """Whoever started the first is who started this one."""
    store = control(Settings())
    _, name = store.pointer(starting_pointer(str(run.id)))
    name = name or (SCHEDULE if run.auto_scheduled else "")
    with suppress(StaleWrite):  # it stands there already
        if name:
            store.move_pointer(starting_pointer(again), 0, name)


def _tell(event: str, run: FlowRun, detail: dict[str, Any]) -> None:
    resource = {"prefect.resource.id": f"prefect.flow-run.{run.id}", "prefect.resource.name": run.name}
    emit_event(event=event, resource=resource, payload=detail)


def _times(tags: Iterable[str]) -> int:
    return max((int(t.removeprefix(TIMES)) for t in tags if t.startswith(TIMES)), default=0)


def _crashed() -> State[None]:
    return Crashed(message="Its process is gone: no heartbeat came")
