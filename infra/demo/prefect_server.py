"""Prefect's server and process worker as processes, and the few REST calls the demo makes of them."""

from __future__ import annotations

import json
import os
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

from infra.demo.servers import PYTHON, Server
from pawl.errors import ServerNotUp
from pawl.monitoring.progress import ProgressFile
from pawl.settings import Settings

ENDED = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")


def environment(settings: Settings, root: Path) -> dict[str, str]:
    """What Prefect's processes, and the flows they start, are told."""
    return {
        "PREFECT_API_URL": settings.prefect_api_url,
        "PREFECT_HOME": str((settings.home / "prefect").resolve()),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_LOGGING_LEVEL": "WARNING",
        "PREFECT_WORKER_QUERY_SECONDS": "1",
        "PREFECT_CLI_COLORS": "false",
        "DO_NOT_TRACK": "1",
        "PYTHONPATH": str(root),
        "PAWL_ROOT": str(root),
    }


def database(settings: Settings) -> Server | None:
    """The embedded PostgreSQL, None where the setting says SQLite."""
    if settings.prefect_database == "sqlite":
        return None
    uri = settings.home / "run" / "prefect-database-uri"
    data = settings.home / "postgres"
    return Server(
        name="postgres",
        command=[PYTHON, "-m", "infra.demo.postgres_server", str(data.resolve()), str(uri.resolve())],
        health=uri.exists,
        home=settings.home,
        ready_s=60,
    )


def server(settings: Settings, root: Path) -> Server:
    """Prefect's API and UI. Its database must be up."""
    env = environment(settings, root)
    uri = settings.home / "run" / "prefect-database-uri"
    if settings.prefect_database == "postgres" and uri.exists():
        env["PREFECT_API_DATABASE_CONNECTION_URL"] = uri.read_text()
    command = [
        PYTHON,
        "-m",
        "prefect",
        "server",
        "start",
        "--host",
        settings.host,
        "--port",
        str(settings.prefect_port),
    ]
    url = f"{settings.prefect_api_url}/health"
    return Server("prefect", command, url, settings.home, settings.prefect_port, env, ready_s=120)


def worker(settings: Settings, root: Path) -> Server:
    """A process worker on pool `pawl`."""
    command = [PYTHON, "-m", "prefect", "worker", "start", "--pool", "pawl", "--type", "process", "--name", "pawl"]

    def online() -> bool:
        found = _post(settings, "/work_pools/pawl/workers/filter", {})
        return any(w["status"] == "ONLINE" for w in found)

    return Server("worker", command, online, settings.home, None, environment(settings, root), ready_s=90)


def watch(settings: Settings, run: str, progress: ProgressFile, tell: Callable[[int, str], None]) -> str:
    """Wait for a flow run's end and tell how far its step is, of 100; why it failed, "" where it did not."""
    began = time.time()
    while True:
        kind, message = run_state(settings, run)
        if kind == "COMPLETED":
            return ""
        if kind in ENDED:
            return f"ended as {kind}: {message[-1500:]}"
        now = progress.read()
        if now and now.at > began:
            tell(min(99, 100 * now.done // max(1, now.total)), f"{now.name} {now.done}/{now.total} {now.note}")
        time.sleep(0.5)


def deploy(settings: Settings, root: Path) -> None:
    """Create the pool and every deployment of prefect.yaml."""
    env = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"} | environment(settings, root)
    try:
        _get(settings, "/work_pools/pawl")
    except urllib.error.HTTPError:
        _post(settings, "/work_pools/", {"name": "pawl", "type": "process"})
    done = subprocess.run(
        [PYTHON, "-m", "prefect", "--no-prompt", "deploy", "--all"],
        cwd=root, env=env, capture_output=True, text=True, timeout=180, check=False,
    )  # fmt: skip
    if done.returncode != 0:
        raise ServerNotUp(f"prefect deploy failed:\n{(done.stdout + done.stderr)[-2000:]}")


def start_run(settings: Settings, deployment: str, parameters: dict[str, Any]) -> str:
    """Ask for a run of `flow-name/deployment-name`; returns its id."""
    found = _get(settings, f"/deployments/name/{deployment}")
    body = {"state": {"type": "SCHEDULED"}, "parameters": parameters}
    return str(_post(settings, f"/deployments/{found['id']}/create_flow_run", body)["id"])


def run_state(settings: Settings, run: str) -> tuple[str, str]:
    """(state type, message) of a run."""
    state = _get(settings, f"/flow_runs/{run}")["state"] or {}
    return str(state.get("type", "PENDING")), str(state.get("message") or "")


def wait_run(settings: Settings, run: str, timeout_s: float = 1800) -> None:
    """Until the run has completed. ServerNotUp with its message otherwise."""
    end = time.monotonic() + timeout_s
    while time.monotonic() < end:
        kind, message = run_state(settings, run)
        if kind == "COMPLETED":
            return
        if kind in ENDED:
            raise ServerNotUp(f"the flow run ended as {kind}: {message}; see {settings.home}/logs/worker.log")
        time.sleep(0.5)
    raise ServerNotUp(f"the flow run did not end within {timeout_s:.0f} s; see {settings.home}/logs/worker.log")


def _get(settings: Settings, path: str, patience_s: float = 60) -> Any:
    """Read from the API. A busy server that stumbles over one question is asked again for a while."""
    end = time.monotonic() + patience_s
    while True:
        try:
            with urllib.request.urlopen(settings.prefect_api_url + path, timeout=20) as answer:  # noqa: S310 - loopback
                return json.load(answer)
        except OSError as e:
            if (isinstance(e, urllib.error.HTTPError) and e.code < 500) or time.monotonic() > end:
                raise
            time.sleep(1)


def _post(settings: Settings, path: str, body: Any, patience_s: float = 60) -> Any:
    """Write to the API. One that is too busy to take it (503: nothing was done) is asked again for a while."""
    end = time.monotonic() + patience_s
    request = urllib.request.Request(  # noqa: S310 - loopback
        settings.prefect_api_url + path, json.dumps(body).encode(), {"content-type": "application/json"}
    )
    while True:
        try:
            with urllib.request.urlopen(request, timeout=20) as answer:  # noqa: S310 - loopback
                return json.load(answer)
        except urllib.error.HTTPError as e:
            if e.code != 503 or time.monotonic() > end:
                raise
            time.sleep(1)
