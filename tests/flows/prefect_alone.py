"""Prefect's server on SQLite without a worker, for flows that run in the test's own process."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from prefect.events.worker import EventsWorker
from prefect.settings import PREFECT_API_URL, PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings

from infra.demo.servers import Server
from pawl.platform import prefect_server
from pawl.settings import Settings


@contextmanager
def prefect_alone(
    folder: Path, root: Path, port: int, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[Settings, Server]]:
    """The settings that name it, and the server; what runs here reports to it.

    What this process tells of its runs goes through one thread, which stays with the server that it spoke to first: it
    is ended before the next server is there, and before this one goes.
    """
    EventsWorker.drain_all(timeout=30)
    for name, value in (("HOME", folder / "home"), ("PREFECT_PORT", port), ("PREFECT_DATABASE", "sqlite")):
        monkeypatch.setenv(f"PAWL_{name}", str(value))
    settings = Settings()
    server = prefect_server.server(settings, root)
    server.start()
    try:
        server.wait()
        heartbeats = {PREFECT_FLOWS_HEARTBEAT_FREQUENCY: 30}  # as all flows are told to send them
        with temporary_settings({PREFECT_API_URL: settings.prefect_api_url, **heartbeats}):
            yield settings, server
            EventsWorker.drain_all(timeout=30)
    finally:
        server.stop()
