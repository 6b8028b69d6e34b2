"""A workplace with a real MLflow, a small cluster, and Prefect with its worker."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pawl.improvement.workplace import Workplace
from pawl.settings import Settings
from tests.flows.orchestration import Orchestration
from tests.integration.promotion_place import AGENT, Cluster


@pytest.fixture
def place(
    outside: Path, root: Path, unused: Callable[[], int], mlflow_url: str, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Workplace]:
    """Settings in the environment, as the flows' processes read them."""
    cluster = Cluster()
    monkeypatch.setenv("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    told = {
        "HOME": str(outside / "home"), "FLEET": str(root / "infra" / "fleet.yaml"),
        "VLLM_PORT": str(cluster.server.server_address[1]), "PREFECT_PORT": str(unused()),
        "MLFLOW_PORT": mlflow_url.rsplit(":", 1)[1],
    }  # fmt: skip
    for name, value in told.items():
        monkeypatch.setenv(f"PAWL_{name}", value)
    yield Workplace(Settings(), AGENT)
    cluster.server.shutdown()


@pytest.fixture
def prefect(place: Workplace, root: Path) -> Iterator[Orchestration]:
    """Up with all deployments."""
    made = Orchestration(place.settings, root)
    yield made
    made.end()
