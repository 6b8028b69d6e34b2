"""The weekly retrain of the fleet on a real Prefect server with its worker and a real MLflow, with a real training of a
tiny model: a dry run, weeks that were missed, kill -9 in the middle of one, and the run that goes on for it."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import psutil
import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import DeploymentScheduleCreate
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterKey
from prefect.client.schemas.objects import State
from prefect.client.schemas.schedules import CronSchedule
from prefect.settings import PREFECT_API_URL, PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings
from prefect.states import Crashed, Running, Scheduled
from typer.testing import CliRunner

from flows.improve_agent import improve_agent
from flows.improve_fleet import improve_fleet
from flows.resume_crashed import resume_crashed
from pawl.cli import app
from pawl.errors import ConfigError, PawlError
from pawl.improvement.retrain_lease import Retraining, holder
from pawl.improvement.steps import training_of
from pawl.improvement.weekly import done_weeks
from pawl.improvement.workplace import Candidate, Workplace
from pawl.registry.approvals import starting_pointer
from pawl.settings import Settings
from tests.flows.orchestration import Orchestration
from tests.flows.weekly_place import AGENT, IDLE, Tickets, record, schedule, weeks, write_fleet
from tests.waiting import until

SLOW_S = 400  # a machine that does something else meanwhile takes its time
WEEKLY = "improve-fleet/weekly"


@pytest.fixture
def place(
    tmp_path: Path, outside: Path, mlflow_url: str, unused: Callable[[], int], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Workplace]:
    """Settings in the environment, as the flows' processes read them; Prefect starts with them."""
    models = Tickets(0.0, 1.0)
    told = {
        "HOME": str(outside / "home"), "FLEET": str(write_fleet(tmp_path, epochs=25)),
        "VLLM_PORT": str(models.server.server_address[1]), "MLFLOW_PORT": mlflow_url.rsplit(":", 1)[1],
        "PREFECT_PORT": str(unused()),
    }  # fmt: skip
    for name, value in told.items():
        monkeypatch.setenv(f"PAWL_{name}", value)
    yield Workplace(Settings(), AGENT)
    models.server.shutdown()


ENDED = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")


class Weekly(Orchestration):
    """With these deployments alone: what the others' schedules and events start costs more than the test itself."""

    def __init__(self, settings: Settings, root: Path) -> None:
        self.serve(settings, root)
        self.ask("/work_pools/", {"name": "pawl", "type": "process"})
        found = schedule()
        cron = CronSchedule(cron=f"{found.minute} {found.hour} * * {(found.weekday + 1) % 7}", timezone=found.timezone)
        paused = DeploymentScheduleCreate(schedule=cron, active=False)
        there = [{"prefect.deployments.steps.set_working_directory": {"directory": str(root)}}]
        with temporary_settings({PREFECT_API_URL: settings.prefect_api_url}), get_client(sync_client=True) as client:
            for flow, name in (("improve-fleet", "weekly"), ("collect-fleet", "hourly")):
                file = flow.replace("-", "_")
                client.create_deployment(
                    client.create_flow_from_name(flow), name, entrypoint=f"flows/{file}.py:{file}",
                    work_pool_name="pawl", pull_steps=there, schedules=[paused],
                )  # fmt: skip
        self.up(self.worker)


@pytest.fixture
def prefect(place: Workplace, root: Path) -> Iterator[Weekly]:
    made = Weekly(place.settings, root)
    yield made
    made.end()


def artifacts(key: str) -> list[dict[str, Any]]:
    """Rows of the latest table of that key."""
    with get_client(sync_client=True) as client:
        found = client.read_artifacts(artifact_filter=ArtifactFilter(key=ArtifactFilterKey(any_=[key])))
    return list(json.loads(str(max(found, key=lambda a: a.created).data)))  # type: ignore[arg-type,return-value]


def contents(home: Path) -> set[str]:
    """What a retrain would leave."""
    return {str(p) for kind in ("datasets", "candidates", "adapters", "regression") for p in (home / kind).rglob("*")}


@pytest.mark.slow
@pytest.mark.servers
@pytest.mark.timeout(1500)
def test_missed_weeks_and_a_run_that_is_killed(
    place: Workplace, prefect: Weekly, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home, control = place.settings.home, place.control
    first, second = weeks(2)
    record(place, first, "a")
    record(place, second, "b")
    heartbeats = {PREFECT_FLOWS_HEARTBEAT_FREQUENCY: 30}  # as all flows are told to send them
    with temporary_settings({PREFECT_API_URL: place.settings.prefect_api_url, **heartbeats}):
        silent, silent_since = made("collect-fleet/hourly", Running()), time.monotonic()
        with pytest.raises(ConfigError, match="no agent is called 'nobody'"):
            improve_fleet(agents=["nobody"])

        # A dry run says what would happen, and nothing is there afterwards that was not before.
        before = contents(home)
        would = improve_fleet(dry_run=True)
        assert [(r.agent, r.outcome) for r in would] == [(AGENT, "would train"), (IDLE, "would not train")]
        assert would[0].interactions == would[0].feedback == 40 and (would[0].examples or 0) >= 20
        assert (would[0].minutes or 0) >= 0 and (would[0].memory_gb or 0) > 0 and would[1].told
        assert contents(home) == before and done_weeks(control, AGENT) == []
        assert [row["agent"] for row in artifacts("weeks-dry-run")] == [AGENT, IDLE]

        # Somebody starts it; its process is killed in the middle of the first week's training.
        monkeypatch.setenv("PAWL_API_KEY", control.create_key("operator", "ann")[1])
        started = CliRunner().invoke(app, ["improve", AGENT, "--weeks", "2"], catch_exceptions=False).output.strip()
        lease = until(lambda: holder(control, AGENT), SLOW_S)
        assert not [f for f in resume_crashed() if f.run == started], "it lives"
        until(lambda: list((home / "candidates").glob("*/training/**/checkpoint-*/trainer_state.json")), SLOW_S)
        psutil.Process(lease.pid).send_signal(signal.SIGKILL)
        until(lambda: prefect.run(started)["state"]["type"] == "CRASHED", 60)  # its worker saw it
        assert done_weeks(control, AGENT) == []
        kept = sorted((home / "datasets").glob("tickets-*.json"))

        # Feedback goes on coming in: without a memory of its dataset the week would be trained anew.
        record(place, first, "late", amount=10)
        began = time.monotonic()
        found = [f for f in resume_crashed() if f.run == started]
        tags = prefect.run(started)["tags"]
        assert "started-again" in tags and not [f for f in resume_crashed() if f.run == started], "once"
        assert [f.verdict for f in found] == ["start again"]
        (again,) = [r for r in prefect.runs("improve-fleet") if f"resumes:{started}" in r["tags"]]
        assert again["parameters"] == prefect.run(started)["parameters"] and "resumed-1" in again["tags"]
        assert control.pointer(starting_pointer(again["id"]))[1] == "ann"
        ended = until(lambda: (r := prefect.run(again["id"]))["state"]["type"] in ENDED and r, SLOW_S)
        print(f"from the second look to the end of both weeks: {time.monotonic() - began:.1f} s")
        assert ended["state"]["type"] == "COMPLETED", ended["state"]["message"]
        called = prefect.ask("/flow_runs/filter", {"flow_runs": {"parent_flow_run_id": {"any_": [started]}}})
        assert [r["state"]["type"] for r in called] == ["CRASHED"], "what the dead one had called does not run on"

        assert [w.stretch for w in done_weeks(control, AGENT)] == [first, second]
        assert set(kept) < set((home / "datasets").glob("tickets-*.json"))
        candidates = [Candidate(p) for p in (home / "candidates").iterdir()]
        assert len(candidates) == 2, "nothing was trained twice"
        assert sorted(training_of(c).resumed_at > 0 for c in candidates) == [False, True]
        versions = place.registry.versions(AGENT)
        assert [v.tags["started_by"] for v in versions] == ["ann", "ann"]
        assert holder(control, AGENT) is None

        # Again: nothing is left. The other agent has nothing to learn from, which is no failure.
        assert [(r.agent, r.outcome) for r in improve_fleet(weeks_back=2)] == [(IDLE, "too little data")] * 2
        assert len(place.registry.versions(AGENT)) == 2

        # One that another run retrains is left out where that is wanted; one agent's failure stops no other.
        third = weeks(3)[0]
        day = time.strftime("%Y-%m-%d", time.gmtime(third.since + 3 * 86_400))
        with Retraining(control, IDLE, "another"):
            busy = improve_fleet(agents=[IDLE], week=day, when_busy="cancel")
            alone = improve_agent(IDLE, when_busy="cancel", return_state=True)
        assert [r.outcome for r in busy] == ["busy"] and "run another" in busy[0].told
        assert alone.is_cancelled() and "run another" in str(alone.message)
        record(place, third, "c")
        place.settings.fleet.write_text(place.settings.fleet.read_text().replace("models/tiny", "models/gone"))
        with pytest.raises(PawlError, match="1 of 2 weeks failed") as failed:
            improve_fleet(week=day)
        assert f"{AGENT}, " in str(failed.value) and "models/gone does not exist" in str(failed.value)
        assert [row["outcome"] for row in artifacts("weeks")] == ["failed", "too little data"]

        # Given up after three starts; marked where nothing was heard of it for two heartbeats.
        hopeless = made(WEEKLY, Crashed(), "resumed-3")
        until(lambda: time.monotonic() - silent_since > 75, SLOW_S)
        told = {f.run: f.verdict for f in resume_crashed(older_than_s=0)}
        assert told[hopeless] == "give up" and told.get(silent, "mark") == "mark"
        assert prefect.run(silent)["state"]["type"] == "CRASHED" and "given-up" in prefect.run(hopeless)["tags"]
        assert not [r for r in prefect.runs("collect-fleet") if f"resumes:{silent}" in r["tags"]]
        assert resume_crashed(older_than_s=0) == ()


def made(deployment: str, state: State[Any], *tags: str) -> str:
    """A run of that deployment which says that it is in that state; no process ever was."""
    with get_client(sync_client=True) as client:
        later = Scheduled(scheduled_time=datetime.now(UTC) + timedelta(hours=1))
        found = client.read_deployment_by_name(deployment)
        run = client.create_flow_run_from_deployment(found.id, state=later, tags=tags)
        client.set_flow_run_state(UUID(str(run.id)), state, force=True)
    return str(run.id)
