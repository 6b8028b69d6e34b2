"""The Kubernetes work pool on a real Prefect server: made, changed, and its deployment variables taken by it."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest

from infra.kubernetes.work_pool import put_pool
from pawl.platform import prefect_server
from pawl.settings import Settings


@pytest.mark.servers
def test_the_pool_is_made_and_then_changed(root: Path, tmp_path: Path, unused: Callable[[], int]) -> None:
    settings = Settings(home=tmp_path, prefect_port=unused(), prefect_database="sqlite")
    api = settings.prefect_api_url
    templates = [
        json.loads((root / "infra" / "kubernetes" / place / "work-pool.json").read_text())
        for place in ("base", "overlays/gpu")
    ]
    server = prefect_server.server(settings, root)
    server.start()
    try:
        server.wait()
        found = []
        for template in templates:
            found.append(put_pool(api, "pawl", template))
            with urllib.request.urlopen(f"{api}/work_pools/pawl", timeout=30) as answer:
                pool = json.load(answer)
            assert pool["type"] == "kubernetes" and pool["base_job_template"] == template
        assert found == ["made", "changed"]
    finally:
        server.stop()
