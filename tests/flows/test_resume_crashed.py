"""Runs that are silent after an outage of Prefect's server, on a real one: who is heard of again lives."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import UUID

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import State
from prefect.events import emit_event
from prefect.settings import PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings
from prefect.states import Crashed, Pending, Running
from prefect.types._datetime import from_timestamp

from pawl.settings import Settings
from tasks.crashed import crashed_runs, settle_crashed, silent_runs, still_silent
from tests.flows.prefect_alone import prefect_alone


@pytest.fixture
def settings(
    tmp_path: Path, root: Path, unused: Callable[[], int], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Settings]:
    with prefect_alone(tmp_path, root, unused(), monkeypatch) as (made, _):
        yield made


@pytest.mark.servers
@pytest.mark.timeout(240)
def test_silence_is_heard_twice_before_a_run_is_dead(settings: Settings) -> None:
    with get_client(sync_client=True) as client:
        deployment = client.create_deployment(client.create_flow_from_name("collect-fleet"), "hourly")
        names = ("alive", "dead", "waits", "crashed")
        runs = {n: str(client.create_flow_run_from_deployment(deployment, name=n).id) for n in names}
        states: list[State[None]] = [Running(), Running(), Pending(), Crashed()]
        for name, state in zip(names, states, strict=True):
            client.set_flow_run_state(UUID(runs[name]), state, force=True)
    # An hour ago, as its server tells it: since then nobody could be heard.
    with sqlite3.connect(settings.home / "prefect" / "prefect.db", timeout=30) as db:
        was = str(from_timestamp(time.time() - 3600).strftime("%Y-%m-%d %H:%M:%S.%f"))
        moved = db.execute("UPDATE flow_run_state SET timestamp = ? WHERE type IN ('RUNNING', 'PENDING')", (was,))
        assert moved.rowcount >= 3

    # A dead run that its worker saw is no question of silence, and none that is collected every hour is started again.
    assert crashed_runs.fn(3) == ()
    silent = silent_runs.fn(120, 3)
    assert {f.name: f.verdict for f in silent} == {"alive": "mark", "dead": "mark", "waits": "mark"}

    resource = {"prefect.resource.id": f"prefect.flow-run.{runs['alive']}", "prefect.resource.name": "alive"}
    emit_event(event="prefect.flow-run.heartbeat", resource=resource)
    with get_client(sync_client=True) as client:
        client.set_flow_run_state(UUID(runs["waits"]), Running(), force=True)
    dead = still_silent.fn(silent, for_s=10.0)
    assert [f.name for f in dead] == ["dead"]
    assert [settle_crashed.fn(f).verdict for f in dead] == ["mark"]
    with get_client(sync_client=True) as client:
        now = {n: client.read_flow_run(UUID(run)).state for n, run in runs.items()}
    assert {n: s and s.type.value for n, s in now.items()} == {
        "alive": "RUNNING", "dead": "CRASHED", "waits": "RUNNING", "crashed": "CRASHED",
    }  # fmt: skip
    assert [f.name for f in silent_runs.fn(120, 3)] == []

    with temporary_settings({PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}):
        assert silent_runs.fn(0, 3) == (), "nobody sends any"
