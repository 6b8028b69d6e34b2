"""`pawl doctor` beside a real Prefect server: deployments that drifted, runs that hang, a pool without a worker."""

from __future__ import annotations

import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest

from infra.demo.prefect_runs import start_run
from pawl.platform import facts_services, prefect_server
from pawl.platform.findings import Finding
from pawl.settings import Settings

FLOW = "from prefect import flow\n\n\n@flow\ndef make_tea(cups: int = 1) -> None:\n    pass\n"
YAML = """\
name: tea
deployments:
  - name: nightly
    entrypoint: flows/make_tea.py:make_tea
    work_pool: {name: pawl}
    parameters: {cups: 2}
    schedules: [{cron: "0 2 * * 0", timezone: Europe/Vienna, slug: night}, {interval: 60, slug: minute}]
"""


def one(findings: list[Finding]) -> Finding:
    (found,) = findings
    return found


@pytest.mark.servers
def test_prefect_beside_prefect_yaml(tmp_path: Path, unused: Callable[[], int]) -> None:
    root = tmp_path / "project"
    (root / "flows").mkdir(parents=True)
    (root / "flows" / "make_tea.py").write_text(FLOW)
    (root / "prefect.yaml").write_text(YAML)
    settings = Settings(home=tmp_path / "home", root=root, prefect_port=unused(), prefect_database="sqlite")
    server = prefect_server.server(settings, root)
    server.start()
    try:
        server.wait()
        assert one(facts_services.prefect(settings)).level == "ok"
        assert "is not in Prefect" in one(facts_services.deployments(settings)).what
        assert "there is no pool" in one(facts_services.pool(settings)).what
        before = prefect_server.deployed_as(settings, root)
        prefect_server.deploy(settings, root)
        assert one(facts_services.deployments(settings)).level == "ok"
        assert "has no worker" in one(facts_services.pool(settings)).what

        for part, was, now in (
            ("parameters", "cups: 2", "cups: 3"),
            ("schedule", "0 2 * * 0", "0 3 * * 0"),
            ("schedule", "Vienna", "Lisbon"),
            ("schedule", "interval: 60", "interval: 90"),
        ):
            (root / "prefect.yaml").write_text(YAML.replace(was, now))
            found = one(facts_services.deployments(settings))
            assert found.level == "fail" and found.what.endswith(f"differs from prefect.yaml: {part}"), found
        assert prefect_server.deployed_as(settings, root) != before
        (root / "prefect.yaml").write_text(YAML)
        row = facts_services.ask(f"{settings.prefect_api_url}/deployments/name/make-tea/nightly")
        pause = f"{settings.prefect_api_url}/deployments/{row['id']}/pause_deployment"
        urllib.request.urlopen(urllib.request.Request(pause, b"{}", {"content-type": "application/json"})).close()
        assert "is paused" in one(facts_services.deployments(settings)).what

        run = start_run(settings, "make-tea/nightly", {})
        facts_services.ask(f"{settings.prefect_api_url}/flow_runs/{run}/set_state", {"state": {"type": "PENDING"}})
        assert one(facts_services.runs(settings, time.time())).level == "ok"
        stuck = one(facts_services.runs(settings, time.time() + 700))
        assert stuck.level == "warn" and "1 pending for more than 10 min: make-tea/" in stuck.what
        queued = {"state": {"type": "SCHEDULED", "name": "AwaitingConcurrencySlot"}, "force": True}
        facts_services.ask(f"{settings.prefect_api_url}/flow_runs/{run}/set_state", queued)
        waits = one(facts_services.runs(settings, time.time() + 13 * 3600))
        assert waits.level == "warn" and "1 waiting for the run before for more than" in waits.what
    finally:
        server.stop()
