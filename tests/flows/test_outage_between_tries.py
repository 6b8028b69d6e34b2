"""Prefect's server is killed while a task waits for its next try, and comes back: the run ends as if nothing were."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from pathlib import Path
from threading import Timer

import psutil
import pytest
from prefect import flow, task
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import TaskRunFilter, TaskRunFilterFlowRunId
from prefect.events.worker import EventsWorker

from pawl.errors import ServerNotUp
from tasks.failures import PATIENT
from tests.flows.prefect_alone import prefect_alone


@pytest.mark.servers
def test_a_task_that_is_tried_again_does_not_need_prefect_meanwhile(
    tmp_path: Path, root: Path, unused: Callable[[], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    with prefect_alone(tmp_path, root, unused(), monkeypatch) as (_, server):
        tried: list[float] = []

        @task(**(PATIENT | {"retry_delay_seconds": [5.0] * 4}))
        def asks_a_server_that_starts_anew() -> int:
            tried.append(time.monotonic())
            if len(tried) == 1:
                process = server.running()
                assert process is not None
                family = [*process.children(recursive=True), process]
                for one in family:
                    one.send_signal(signal.SIGKILL)
                psutil.wait_procs(family, 10)
                server.record.unlink()
                Timer(2.0, server.start).start()
            if len(tried) < 3:
                raise ServerNotUp("MLflow")
            return len(tried)

        @flow
        def plays() -> int:
            return asks_a_server_that_starts_anew()

        assert plays() == 3
        server.wait()
        EventsWorker.drain_all(timeout=30)
        with get_client(sync_client=True) as client:
            (run,) = client.read_flow_runs()
            assert run.state is not None and run.state.is_completed()
            end = time.monotonic() + 60
            only = TaskRunFilter(flow_run_id=TaskRunFilterFlowRunId(any_=[run.id]))
            while not (
                seen := [t for t in client.read_task_runs(task_run_filter=only) if t.state and t.state.is_final()]
            ):
                assert time.monotonic() < end, "the task's end was told to nobody"
                time.sleep(0.5)
        assert len(tried) == 3 == seen[0].run_count
