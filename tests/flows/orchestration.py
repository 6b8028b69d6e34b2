"""Prefect's server and worker in the tests of flows, and waiting for what they do."""

from __future__ import annotations

import json
import signal
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import psutil

from infra.demo.played_time import only_what_is_played
from infra.demo.servers import Server
from pawl.platform import prefect_server
from pawl.settings import Settings
from tests.waiting import until

PATIENCE_S = 90
Seen = TypeVar("Seen")


def patiently(found: Callable[[], Seen], seconds: float = 300) -> Seen:
    """What Prefect comes to, asked every second: it has much to do. A lost event is made good by the minute's run after
    90 s."""
    return until(found, seconds, every=1)


class Orchestration:
    """Prefect's database, server and worker, as the demo starts them. Its home must not be pytest's folder, which is
    closed to the database's own user."""

    def __init__(self, settings: Settings, root: Path) -> None:
        self.serve(settings, root)
        prefect_server.deploy(settings, root)
        only_what_is_played(settings)  # nothing but what a test asks for, events start, and the minute's run
        self.up(self.worker)

    def serve(self, settings: Settings, root: Path) -> None:
        """The server on its database; no worker yet."""
        self.settings, self.root = settings, root
        database = prefect_server.database(settings)
        assert database is not None
        self.database, self.server = database, prefect_server.server(settings, root)
        self.worker = prefect_server.worker(settings, root)
        self.up(self.database)
        self.up(self.server)

    def up(self, server: Server) -> None:
        server.start()
        server.wait()

    def kill(self, server: Server) -> None:
        process = server.running()
        assert process is not None
        family = [*process.children(recursive=True), process]
        for one in family:
            one.send_signal(signal.SIGKILL)
        psutil.wait_procs(family, 10)
        server.record.unlink()

    def ask(self, path: str, body: dict[str, Any] | None = None, method: str | None = None) -> Any:
        """Asked again where the server is busy with its database, as Prefect's own client does."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(
            self.settings.prefect_api_url + path, data, {"content-type": "application/json"}, method=method
        )
        end = time.monotonic() + PATIENCE_S
        while True:
            try:
                with urllib.request.urlopen(request, timeout=PATIENCE_S) as answer:
                    return json.loads(answer.read() or b"null")
            except urllib.error.HTTPError as e:
                if e.code != 503 or time.monotonic() > end:
                    raise
                time.sleep(1)

    def runs(self, flow: str, deployment: str = "") -> list[dict[str, Any]]:
        found = {"flows": {"name": {"any_": [flow]}}, "sort": "EXPECTED_START_TIME_DESC"}
        if deployment:
            found["deployments"] = {"name": {"any_": [deployment]}}
        return list(self.ask("/flow_runs/filter", found))

    def run(self, run_id: str) -> dict[str, Any]:
        return dict(self.ask(f"/flow_runs/{run_id}"))

    def resume(self, run_id: str, run_input: dict[str, Any] | None) -> str:
        return str(self.ask(f"/flow_runs/{run_id}/resume", {"run_input": run_input})["status"])

    def processes(self) -> list[psutil.Process]:
        """Flow runs' own processes, children of the worker."""
        worker = self.worker.running()
        return worker.children(recursive=True) if worker else []

    def end(self) -> None:
        for one in (self.worker, self.server, self.database):
            one.stop()
