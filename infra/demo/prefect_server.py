"""The few REST calls that the demo makes of Prefect. How its server and worker are started: `pawl.platform`."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from typing import Any

from pawl.errors import ServerNotUp
from pawl.monitoring.progress import ProgressFile
from pawl.platform.prefect_server import database, deploy, environment, server, worker
from pawl.settings import Settings

__all__ = [
    "database", "deploy", "environment", "run_state", "server", "start_run", "wait_run", "watch", "worker",
]  # fmt: skip
ENDED = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")


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
