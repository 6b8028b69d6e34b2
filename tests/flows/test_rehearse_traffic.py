"""A dry run of all of an agent's traffic, or of its latest days: what `pawl improve AGENT` would learn from."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from prefect.settings import PREFECT_API_URL, temporary_settings

from flows.improve_fleet import improve_fleet
from pawl.errors import ConfigError
from pawl.improvement.workplace import Workplace
from pawl.settings import Settings
from tasks.weeks import rehearse_week, traffic_since
from tests.flows.weekly_place import AGENT, IDLE, record, weeks, write_fleet


@pytest.fixture
def place(tmp_path: Path, mlflow_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Workplace]:
    port = mlflow_url.rsplit(":", 1)[1]
    told = (("HOME", tmp_path / "home"), ("FLEET", write_fleet(tmp_path, epochs=1)), ("MLFLOW_PORT", port))
    for name, value in told:
        monkeypatch.setenv(f"PAWL_{name}", str(value))
    with temporary_settings({PREFECT_API_URL: "http://127.0.0.1:9/api"}):  # progress is shown where Prefect is up
        yield Workplace(Settings(), AGENT)


@pytest.mark.servers
def test_all_traffic_is_more_than_the_last_week(place: Workplace) -> None:
    first, second = weeks(2)
    record(place, first, "a")
    record(place, second, "b", amount=30)
    (everything,) = traffic_since.fn([AGENT], 0.0)
    assert (everything.since, everything.shown) == (0.0, "all traffic") and everything.until <= time.time()
    would = rehearse_week.fn(everything)
    assert (would.outcome, would.interactions, would.feedback) == ("would train", 70, 70)
    (latest,) = traffic_since.fn([AGENT], second.since)
    assert latest.since == second.since and latest.shown.startswith("since 20")
    assert [w.agent for w in traffic_since.fn(None, 0.0)] == [AGENT, IDLE]
    with pytest.raises(ConfigError, match="no agent is called 'nobody'"):
        traffic_since.fn(["nobody"], 0.0)


def test_it_is_of_a_dry_run_alone() -> None:
    with pytest.raises(ConfigError, match="dry run alone"):
        improve_fleet.fn(since=0.0)
