"""The monthly report as a real run of Prefect, into a real MLflow."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.test_report_month import COSTS, FLEET, MONTH, Settings, add, traffic

pytestmark = [pytest.mark.servers, pytest.mark.slow]


@pytest.fixture
def settings(tmp_path: Path, mlflow_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Settings]:
    (tmp_path / "fleet.yaml").write_text(FLEET.format(port=1) + COSTS)
    told = {"HOME": str(tmp_path), "FLEET": str(tmp_path / "fleet.yaml"), "MLFLOW_ADDRESS": mlflow_url}
    for name, value in told.items():
        monkeypatch.setenv(f"PAWL_{name}", value)
    monkeypatch.setenv("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    yield Settings()


def test_the_last_whole_month_becomes_a_run_a_page_and_two_artifacts(settings: Settings) -> None:
    from prefect.client.orchestration import get_client
    from prefect.testing.utilities import prefect_test_harness

    from flows.report_month import report_month

    add(settings, traffic())
    with prefect_test_harness(server_startup_timeout=120):
        made = report_month()
        with get_client(sync_client=True) as client:
            (run,) = client.read_flow_runs()
            artifacts = {a.key: a for a in client.read_artifacts()}
    assert (made.month, made.whole, made.stand_in) == (MONTH, True, True)
    assert made.verdicts["MVP"] == "not yet" and Path(made.page).exists() and "/runs/" in made.link
    assert run.name == "report of the last month" and run.state_name == "Completed"
    table = artifacts[f"phases-{MONTH}"].data
    assert '"criterion": "Answered by local models"' in table and made.link in artifacts[f"report-{MONTH}"].data
    assert dt.datetime.now(dt.UTC).strftime("%Y-%m") != made.month
