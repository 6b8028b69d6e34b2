"""prefect.yaml on a real Prefect server: what is deployed, when it runs next, what starts it, what a second run does,
and who is told. Webhook and mail server are real receivers on loopback."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from prefect.client.orchestration import get_client
from prefect.events.worker import EventsWorker
from prefect.server.schemas.schedules import CronSchedule
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.workers.process import ProcessJobConfiguration, ProcessWorker
from pydantic import SecretStr
from ruamel.yaml import YAML

from infra.demo import prefect_runs
from infra.demo.played_time import only_what_is_played
from infra.notifications.automations_prefect import put, send_test
from infra.notifications.channels import Channels
from infra.notifications.notices import NOTICES
from pawl import bootstrap
from pawl.fleet.spec import RolloutSpec
from pawl.platform import facts_services, prefect_server
from pawl.rollout.events import Event, Name
from pawl.rollout.prefect_api import PrefectApi
from pawl.rollout.route import Arm
from pawl.rollout.state import Rollout
from pawl.settings import Settings
from tests.flows.orchestration import Orchestration
from tests.ports import free_port
from tests.receivers import Mailbox, Webhook
from tests.waiting import until

ROOT = Path(__file__).resolve().parents[2]
DEPLOYMENTS: list[dict[str, Any]] = YAML(typ="safe").load((ROOT / "prefect.yaml").read_text())["deployments"]
ZONE = "Europe/Berlin"


class Unmanned(Orchestration):
    """The server with every deployment, and no worker: runs stay where they are put."""

    def __init__(self, settings: Settings, root: Path) -> None:
        self.serve(settings, root)
        prefect_server.deploy(settings, root)

    def emit(self, name: Name, version: str = "", **detail: Any) -> None:
        event = Event(name=name, agent="functional-negative", version=version, at=time.time(), detail=detail)
        assert PrefectApi(self.settings.prefect_api_url).emit(event)

    def deployment(self, flow: str, name: str) -> dict[str, Any]:
        return dict(self.ask(f"/deployments/name/{flow}/{name}"))

    def put(self, flow: str, name: str, state: str) -> tuple[str, str]:
        """A new run of it, taken to a state as a worker would: (the server's answer, the state it is in)."""
        run = prefect_runs.start_run(self.settings, f"{flow}/{name}", {})
        status = self.ask(f"/flow_runs/{run}/set_state", {"state": {"type": state}})["status"]
        return str(status), str(self.run(run)["state"]["name"])


@pytest.fixture(scope="module")
def deployed() -> Iterator[Unmanned]:
    with tempfile.TemporaryDirectory(prefix="pawl-") as made_for:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("PAWL_TIMEZONE", ZONE)
            made = Unmanned(Settings(home=Path(made_for) / "home", prefect_port=free_port()), ROOT)
        yield made
        made.end()


def flow_of(deployment: dict[str, Any]) -> str:
    return str(deployment["entrypoint"]).rpartition(":")[2].replace("_", "-")


@pytest.mark.servers
@pytest.mark.timeout(600)
def test_everything_is_deployed_as_it_is_written(deployed: Unmanned) -> None:
    automations = [a for a in deployed.ask("/automations/filter", {}) if a["trigger"]["type"] == "event"]
    for written in DEPLOYMENTS:
        found = deployed.deployment(flow_of(written), written["name"])
        assert (found["description"], found["tags"]) == (written["description"], written["tags"])
        assert found["work_pool_name"] == "pawl" and found["entrypoint"] == written["entrypoint"]
        strategy = written.get("concurrency_limit", {}).get("collision_strategy")
        assert (found["concurrency_options"] or {}).get("collision_strategy") == strategy
        assert [s["slug"] for s in found["schedules"]] == [s["slug"] for s in written.get("schedules", ())]
        assert all(s["active"] for s in found["schedules"])
        started_by = [a for a in automations if any(x.get("deployment_id") == found["id"] for x in a["actions"])]
        assert sorted(e for a in started_by for e in a["trigger"]["expect"]) == sorted(
            e for t in written.get("triggers", ()) for e in t["expect"]
        )
        # The form: every parameter says what it is.
        asked = found["parameter_openapi_schema"]["properties"]
        assert [n for n, p in asked.items() if not p.get("description")] == [], f"{found['name']} {written['name']}"
    training = deployed.deployment("improve-agent", "when-needed")["parameter_openapi_schema"]["definitions"]
    method, rank = (training["TrainingSpec"]["properties"][n] for n in ("method", "rank"))
    assert method["enum"] == ["lora", "rslora", "adalora", "dora", "qlora", "full"] and method["title"] == "Method"
    assert (rank["minimum"], rank["maximum"], rank["default"]) == (1, 256, 16)


@pytest.mark.servers
@pytest.mark.timeout(600)
def test_the_week_begins_on_sunday_at_two_there(deployed: Unmanned) -> None:
    def next_runs(flow: str, name: str) -> list[datetime]:
        runs = [r for r in deployed.runs(flow, name) if r["auto_scheduled"]]
        return sorted(datetime.fromisoformat(r["expected_start_time"]).astimezone(ZoneInfo(ZONE)) for r in runs)

    sundays = until(lambda: next_runs("improve-fleet", "weekly"), 120)
    assert {(d.isoweekday(), d.hour, d.minute) for d in sundays} == {(7, 2, 0)}
    assert len({d.date() for d in sundays}) == len(sundays) >= 2
    quarters = until(lambda: next_runs("watch-quality", "quarter-hourly"), 120)
    assert {d.minute for d in quarters} <= {0, 15, 30, 45}
    assert all((b - a).total_seconds() == 900 for a, b in pairwise(quarters))
    assert all(d.minute == 5 for d in until(lambda: next_runs("collect-fleet", "hourly"), 120))


async def test_a_change_of_the_clocks_loses_no_week() -> None:
    """Two o'clock is not there on the Sunday in March on which Berlin's clocks go forward, and twice in October."""
    (written,) = [d for d in DEPLOYMENTS if d["name"] == "weekly" and "improve_fleet" in d["entrypoint"]]
    cron = written["schedules"][0]["cron"]
    schedule = CronSchedule(cron=cron, timezone=ZONE)
    dates = await schedule.get_dates(60, start=datetime(2026, 1, 1, tzinfo=UTC))
    days = [d.astimezone(ZoneInfo(ZONE)).date() for d in dates]
    assert len(set(days)) == 60 and {d.isoweekday() for d in days} == {7}
    assert {(b - a).days for a, b in pairwise(days)} == {7}


@pytest.mark.servers
@pytest.mark.timeout(600)
async def test_a_process_worker_takes_no_notice_of_what_a_cluster_is_asked(deployed: Unmanned) -> None:
    asked = deployed.deployment("improve-agent", "when-needed")["job_variables"]
    of_clusters = {"gpus", "cpu", "cpu_limit", "memory", "scratch"}
    assert asked == dict.fromkeys(of_clusters, "") | {
        "job_watch_timeout_seconds": 604800,
        "pod_watch_timeout_seconds": 86400,
    }
    assert deployed.deployment("roll-out", "every-minute")["job_variables"] == {}
    base = ProcessWorker.get_default_base_job_template()
    with temporary_settings({PREFECT_API_URL: deployed.settings.prefect_api_url}):
        async with get_client() as client:
            made = [
                await ProcessJobConfiguration.from_template_and_values(base, values, client=client)
                for values in (asked, {})
            ]
    assert made[0] == made[1]
    found = facts_services.deployments(deployed.settings.model_copy(update={"root": ROOT}))
    assert {f.level for f in found} == {"ok"}, found


@pytest.mark.servers
@pytest.mark.timeout(600)
def test_events_start_runs(deployed: Unmanned) -> None:
    def started(flow: str, name: str) -> list[dict[str, Any]]:
        return [dict(r["parameters"]) for r in deployed.runs(flow, name) if not r["auto_scheduled"]]

    about = {"agent": "functional-negative"}
    deployed.emit("pawl.feedback.enough", usable=1200, wanted=1000)
    until(lambda: started("improve-agent", "when-needed") == [about], 120)
    deployed.emit("pawl.drift.found", kinds=["length"], retrain="yes")
    until(lambda: started("improve-agent", "when-needed") == [about, about], 120)
    deployed.emit("pawl.drift.found", kinds=["quality"], retrain="no")  # the same change, seen in another kind
    deployed.emit("pawl.approval.granted", "3", evidence="abc", adapter="x", link="")
    until(lambda: started("roll-out", "when-answered") == [about], 120)
    deployed.emit("pawl.alias.moved", "3", alias="previous", before="1")
    deployed.emit("pawl.alias.moved", "4", alias="champion", before="3")
    until(lambda: started("watch-quality", "when-promoted"), 120)
    assert started("watch-quality", "when-promoted") == [about], "only the champion's move is looked at"
    assert started("improve-agent", "when-needed") == [about, about], "events are taken in order: one change, one run"


@pytest.mark.servers
@pytest.mark.timeout(600)
def test_a_second_run_is_cancelled_or_waits(deployed: Unmanned) -> None:
    assert deployed.put("roll-out", "every-minute", "PENDING") == ("ACCEPT", "Pending")
    assert deployed.put("roll-out", "every-minute", "PENDING")[1] == "Cancelled"
    assert deployed.put("improve-fleet", "weekly", "PENDING") == ("ACCEPT", "Pending")
    assert deployed.put("improve-fleet", "weekly", "PENDING")[1] == "AwaitingConcurrencySlot"
    # What answers a person's word is never held back by the minute's run.
    assert deployed.put("roll-out", "when-answered", "PENDING") == ("ACCEPT", "Pending")


@pytest.mark.servers
@pytest.mark.timeout(600)
def test_people_are_told(deployed: Unmanned) -> None:
    hook, mail, api = Webhook(), Mailbox(), deployed.settings.prefect_api_url
    channels = Channels(
        webhook_url=SecretStr(hook.url), webhook_token=SecretStr("a-token"), smtp_url=SecretStr(mail.url),
        email_from="pawl@example.org", email_to="ann@example.org, bob@example.org",
    )  # fmt: skip
    assert put(channels, api)[-1].endswith(": made")
    assert send_test(channels) == ["email: the test message was taken", "webhook: the test message was taken"]
    again = put(channels, api)
    assert sum(line.endswith("brought up to date") for line in again) == len(NOTICES)

    deployed.emit("pawl.approval.asked", "3", evidence="0a1b2c", adapter="functional-negative-v3-0a", link="http://m")
    deployed.emit("pawl.rollout.stopped", "3", stage="rolled_back", why="worse than the champion", rollout="r1")
    deployed.emit("pawl.drift.found", kinds=["length", "embedding"])
    for state in ("FAILED", "CRASHED"):
        assert deployed.put("collect-feedback", "collect", state)[0] == "ACCEPT"
    wanted = {
        "pawl: a test",
        "functional-negative version 3: approval asked",
        "functional-negative version 3: rolled_back",
        "functional-negative: its traffic is not what it was",
    }
    until(lambda: wanted <= set(hook.subjects()) and len(hook.got) >= len(wanted) + 2, 120)
    told = {b["subject"]: b["body"] for _, b in hook.got}
    assert "0a1b2c: http://m" in told["functional-negative version 3: approval asked"]
    assert "length, embedding" in told["functional-negative: its traffic is not what it was"]
    failed = [s for s in told if s.startswith("collect-feedback: ")]
    assert {s.split()[-1] for s in failed} == {"failed", "crashed"}
    assert all(f"{api.removesuffix('/api')}/runs/flow-run/" in told[s] for s in failed)
    assert {sent for sent, _ in hook.got} == {"Bearer a-token"}
    until(lambda: len(mail.got) >= len(hook.got), 120)
    assert {tuple(sorted(to)) for to, _ in mail.got} == {("ann@example.org",), ("bob@example.org",)} or {
        tuple(sorted(to)) for to, _ in mail.got
    } == {("ann@example.org", "bob@example.org")}
    assert any("rolled_back" in message for _, message in mail.got)

    # Without a channel nobody is told any more.
    assert all(line.endswith(": removed") for line in put(Channels(), api))
    before = len(hook.got)
    deployed.emit("pawl.drift.found", kinds=["format"])
    time.sleep(3)
    assert len(hook.got) == before


@pytest.mark.servers
@pytest.mark.timeout(600)
def test_only_what_passes_is_tried_again(deployed: Unmanned, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from flows.collect_fleet import collect_fleet
    from flows.roll_out import roll_out

    def tries(run: Any, task: str) -> list[int]:
        asked = {"flow_runs": {"id": {"any_": [str(run.state_details.flow_run_id)]}}}
        found = until(lambda: deployed.ask("/task_runs/filter", asked), 120)
        return [t["run_count"] for t in found if t["name"].startswith(task)]

    monkeypatch.setenv("PAWL_HOME", str(tmp_path))
    monkeypatch.setenv("PAWL_MLFLOW_PORT", str(free_port()))  # nobody is there
    arm = Arm("base", "local", "base", "local")
    ended = Rollout(
        id="r1", agent="functional-negative", version="1", champion=arm, challenger=arm, stage="done", opened_at=1.0,
        stage_since=1.0, spec=RolloutSpec(),
    )  # fmt: skip
    bootstrap.control(Settings()).save_rollout(ended)
    with temporary_settings({PREFECT_API_URL: deployed.settings.prefect_api_url}):
        began = time.monotonic()
        down = roll_out("functional-negative", return_state=True)
        assert "does not answer" in str(down.message) and time.monotonic() - began > 5
        until(lambda: tries(down, "settle") == [3], 120)
        monkeypatch.setenv("PAWL_FLEET", str(tmp_path / "none.yaml"))
        wrong = collect_fleet(["functional-negative"], return_state=True)
        assert "none.yaml" in str(wrong.message)
        until(lambda: tries(wrong, "take_in") == [1], 120)
        # What this process tells of its runs goes to a server that ends: whoever drains it later would wait for ever.
        EventsWorker.drain_all(timeout=30)
    assert deployed.run(str(down.state_details.flow_run_id))["name"] == "roll out functional-negative"


@pytest.mark.servers
@pytest.mark.timeout(600)
def test_a_played_week_is_left_alone(deployed: Unmanned) -> None:
    """The last of these tests: it switches off what the others look at."""
    only_what_is_played(deployed.settings)
    active = [s["slug"] for d in deployed.ask("/deployments/filter", {}) for s in d["schedules"] if s["active"]]
    assert active == ["minute"]
    enabled = {e for a in deployed.ask("/automations/filter", {}) if a["enabled"] for e in a["trigger"]["expect"]}
    assert "pawl.approval.asked" in enabled and "pawl.rollout.ready" in enabled
    assert not enabled & {"pawl.feedback.enough", "pawl.drift.found"}
