"""The gateway on the very settings and fleet of infra/kubernetes, but for folders, the port and the database.

It starts strict and with TLS, and is ready while vLLM's pods are not there yet.
"""

from __future__ import annotations

import json
import os
import signal
import ssl
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.integration.test_gateway_access import certificate
from tests.postgres_embedded import Postgres

BASE = Path(__file__).resolve().parents[2] / "infra" / "kubernetes" / "base"


def in_a_pod(folder: Path, port: int, **other: str) -> dict[str, str]:
    """The environment of the gateway's container."""
    lines = [line for line in (BASE / "settings.env").read_text().splitlines() if "=" in line]
    given = dict(line.split("=", 1) for line in lines)
    crt, key, _ = certificate(folder, "localhost")
    here = {"PAWL_HOME": str(folder / "home"), "PAWL_FLEET": str(BASE / "fleet.yaml"), "PAWL_GATEWAY_PORT": str(port)}
    here |= {"PAWL_TLS_CERT": str(crt), "PAWL_TLS_KEY": str(key), "PAWL_KUBERNETES_ACCOUNT": str(folder)}
    return {k: v for k, v in os.environ.items() if not k.startswith("PAWL_")} | given | here | other


def test_it_is_ready_before_vllm_is(tmp_path: Path, free_port: int, postgres: Postgres) -> None:
    env = in_a_pod(tmp_path, free_port, PAWL_CONTROL_URL=postgres.database())
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE  # who it is, other tests ask

    def ask(path: str) -> dict[str, Any]:
        url = f"https://127.0.0.1:{free_port}{path}"
        with urllib.request.urlopen(url, timeout=3, context=context) as answer:
            found: dict[str, Any] = json.load(answer)
            return found

    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen([sys.executable, "-m", "pawl.cli", "gateway"], env=env, stdout=log, stderr=log)
    try:
        end = time.monotonic() + 60
        while True:
            try:
                ready = ask("/readyz")
                break
            except OSError:
                assert process.poll() is None and time.monotonic() < end, (tmp_path / "log").read_text()
                time.sleep(0.2)
        assert ready == {"status": "ready", "replicas": {"up": 0, "of": 0}, "adapters_not_ready": []}
        assert ask("/healthz") == {"status": "ok"}
        with pytest.raises(OSError):
            urllib.request.urlopen(f"http://127.0.0.1:{free_port}/healthz", timeout=3)
    finally:
        process.terminate()
        # uvicorn drains, and then ends by the signal that it was sent.
        assert process.wait(60) == -signal.SIGTERM


def test_it_does_not_start_where_a_service_is_outside_the_fleets_hosts(
    tmp_path: Path, unused: Callable[[], int], postgres: Postgres
) -> None:
    elsewhere = "https://prefect.example"
    env = in_a_pod(tmp_path, unused(), PAWL_PREFECT_ADDRESS=elsewhere, PAWL_CONTROL_URL=postgres.database())
    done = subprocess.run(
        [sys.executable, "-m", "pawl.cli", "gateway"], env=env, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 1
    assert "privacy is strict, but events goes to https://prefect.example/api" in done.stderr
