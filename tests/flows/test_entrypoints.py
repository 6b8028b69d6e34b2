"""Every entrypoint of prefect.yaml loads for real: `prefect deploy` accepts a broken import silently."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

DEPLOYMENTS: list[dict[str, Any]] = YAML(typ="safe").load(
    (Path(__file__).resolve().parents[2] / "prefect.yaml").read_text()
)["deployments"]


@pytest.mark.parametrize("deployment", DEPLOYMENTS, ids=lambda d: d["name"])
def test_it_loads_and_takes_its_parameters(deployment: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    from prefect.flows import load_flow_from_entrypoint

    monkeypatch.chdir(Path(__file__).resolve().parents[2])
    flow = load_flow_from_entrypoint(deployment["entrypoint"], use_placeholder_flow=False)
    assert flow.fn.__module__
    ways = [t["parameters"] for t in deployment.get("triggers", ())] or [deployment.get("parameters", {})]
    assert all(flow.validate_parameters(parameters) is not None for parameters in ways)
