"""Tasks of the run that waits for a person, and what keeps such runs true to the control database."""

from __future__ import annotations

import logging
import time
from uuid import UUID

from httpx import HTTPError
from prefect import task
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas import FlowRun
from prefect.client.schemas.filters import DeploymentFilter, DeploymentFilterName, FlowFilter, FlowFilterName
from prefect.client.schemas.objects import State
from prefect.client.schemas.sorting import FlowRunSort
from prefect.deployments import run_deployment
from prefect.exceptions import PrefectException
from prefect.input import RunInput
from prefect.states import Completed, Crashed
from pydantic import Field

from pawl.improvement import awaiting
from pawl.improvement.workplace import Workplace
from pawl.registry.approvals import unanswered
from tasks.failures import MINUTE_S
from tasks.places import workplace
from tasks.values import Waited

FLOW, DEPLOYMENT = "await-approval", "waiting"
LATE_S = 3600  # the form outlives its request, so that the run ends as held and not as failed
PATIENCE_S = 90  # until a run that the event should have started is started here
MOST_TRIES = 3
LOST = ("FAILED", "CRASHED")
log = logging.getLogger("pawl.approvals")


class ApprovalCode(RunInput):
    """A person's answer. There is no default: resuming without a code answers nothing."""

    code: str = Field(min_length=20, description="what `pawl approve AGENT VERSION --code` printed; it works once")


def form(agent: str, version: str, last: str) -> type[ApprovalCode]:
    """The form with what an approver must know above it; `last`: what was pasted before came to this."""
    place = workplace(agent)
    request = place.control.request(agent, version)
    assert request is not None  # `look` said that it waits
    return ApprovalCode.with_initial_data(description=awaiting.shown(place, request, last))


@task
def look(agent: str, version: str, evidence: str, said: str) -> Waited:
    """Where the request stands; `said` is what the latest pasted text came to."""
    found = awaiting.look(workplace(agent), version, evidence, time.time())
    return Waited(
        agent=agent,
        version=version,
        outcome=found.outcome,
        told=found.told,
        said=said,
        timeout_s=max(1, int(found.seconds_left)) + LATE_S,
    )


@task
def take(agent: str, version: str, evidence: str, code: str) -> str:
    """Verify and spend a pasted code. Its text is not kept in any result."""
    return awaiting.take(workplace(agent), version, evidence, code, time.time())


@task(timeout_seconds=5 * MINUTE_S)
def tend_waiting(agent: str) -> tuple[Waited, ...]:
    """End waiting runs whose request was answered elsewhere, or by nobody; start one that an event did not start."""
    place = workplace(agent)
    try:
        with get_client(sync_client=True) as client:
            runs = [r for r in _runs(client) if r.parameters.get("agent") == agent]
            ended = tuple(_ended(place, client, run) for run in runs if run.state and run.state.is_paused())
            _start_missing(place, runs)
    except (HTTPError, PrefectException) as e:  # the request itself waits in the control database
        log.warning("the runs that wait for people could not be looked after: %s", e)
        return ()
    return tuple(w for w in ended if w is not None)


def _runs(client: SyncPrefectClient) -> list[FlowRun]:
    """The newest 200; more people are not asked at once."""
    return client.read_flow_runs(
        flow_filter=FlowFilter(name=FlowFilterName(any_=[FLOW])),
        deployment_filter=DeploymentFilter(name=DeploymentFilterName(any_=[DEPLOYMENT])),
        sort=FlowRunSort.START_TIME_DESC,
        limit=200,
    )


def _ended(place: Workplace, client: SyncPrefectClient, run: FlowRun) -> Waited | None:
    version, evidence = str(run.parameters.get("version")), str(run.parameters.get("evidence"))
    found = awaiting.look(place, version, evidence, time.time())
    if found.outcome == "waiting":
        if not _answerable(client, run):
            lost: State[None] = Crashed(message="its process ended before the form was written: nobody could answer it")
            client.set_flow_run_state(UUID(str(run.id)), lost)
        return None
    # From suspended straight to its end: resuming it would want a code.
    state: State[None] = Completed(name=found.outcome.capitalize(), message=found.told)
    client.set_flow_run_state(UUID(str(run.id)), state)
    return Waited(agent=place.agent_name, version=version, outcome=found.outcome, told=found.told, said="", timeout_s=0)


def _answerable(client: SyncPrefectClient, run: FlowRun) -> bool:
    """Whether it has its form. Prefect suspends a run first and writes the form after: a process that is killed
    between leaves one that refuses every answer."""
    state = run.state
    assert state is not None
    keys = state.state_details.run_input_keyset
    # Without keys a person suspended it, and resuming wants nothing.
    if not keys or time.time() - state.timestamp.timestamp() < PATIENCE_S:
        return True
    written = client.filter_flow_run_input(UUID(str(run.id)), keys["schema"].removesuffix("schema"), 10, set())
    return {keys["schema"], keys["description"]} <= {w.key for w in written}


def _start_missing(place: Workplace, runs: list[FlowRun]) -> None:
    now = time.time()
    for request in unanswered(place.control.requests(), place.control.rollouts(place.agent_name)):
        about = {"agent": request.agent, "version": request.version, "evidence": request.evidence}
        if request.agent != place.agent_name or now - request.asked_at < PATIENCE_S:
            continue
        if awaiting.look(place, request.version, request.evidence, now).outcome != "waiting":
            continue
        # One that a person cancelled is not started again.
        known = [r for r in runs if r.parameters == about and r.created and r.created.timestamp() >= request.asked_at]
        if len(known) < MOST_TRIES and all(r.state is not None and r.state.type.value in LOST for r in known):
            # A run of its own: a part of another cannot be suspended. The key, since the minute's run and one that an
            # event started look at the same time, and both find none.
            once = f"{request.agent}/{request.version}/{request.evidence}/{request.asked_at}/{len(known)}"
            run_deployment(f"{FLOW}/{DEPLOYMENT}", parameters=about, timeout=0, as_subflow=False, idempotency_key=once)
