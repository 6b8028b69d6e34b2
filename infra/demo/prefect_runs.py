"""The demo's runs of deployments: started, watched and waited for over Prefect's REST API."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from pawl.errors import ServerNotUp
from pawl.monitoring.progress import ProgressFile
from pawl.platform.prefect_server import ask
from pawl.settings import Settings

PATIENCE_S = 60.0  # a server that is busy or starting anew
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
    found = ask(settings, f"/deployments/name/{deployment}", patience_s=PATIENCE_S)
    body = {"state": {"type": "SCHEDULED"}, "parameters": parameters}
    return str(ask(settings, f"/deployments/{found['id']}/create_flow_run", body, patience_s=PATIENCE_S)["id"])


def run_state(settings: Settings, run: str) -> tuple[str, str]:
    """(state type, message) of a run."""
    state = ask(settings, f"/flow_runs/{run}", patience_s=PATIENCE_S)["state"] or {}
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
