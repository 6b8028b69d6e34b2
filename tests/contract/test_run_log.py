"""Runs that are written while work goes on, on a real MLflow server: nested, continued, and with the server away."""

from __future__ import annotations

import logging
import os
import signal
import socket
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from threading import Thread

import pytest
from mlflow import MlflowClient

from pawl.fleet.training import PretrainSpec, TrainingSpec
from pawl.registry.mlflow_registry import MlflowRegistry
from pawl.registry.mlflow_runs import WAITING, MlflowRuns
from pawl.registry.run_log import flat, kept_id, progress_metrics
from pawl.training.result import Progress
from tests.waiting import Took


def forward(port: int, url: str) -> None:
    """Opens `port` as another way to the server."""
    listening = socket.create_server(("127.0.0.1", port))

    def copy(a: socket.socket, b: socket.socket) -> None:
        try:
            while data := a.recv(65536):
                b.sendall(data)
            b.shutdown(socket.SHUT_WR)
        except OSError:
            pass

    def serve() -> None:
        while True:
            one, _ = listening.accept()
            two = socket.create_connection(("127.0.0.1", int(url.rsplit(":", 1)[1])))
            Thread(target=copy, args=(one, two), daemon=True).start()
            Thread(target=copy, args=(two, one), daemon=True).start()

    Thread(target=serve, daemon=True).start()


@pytest.mark.servers
def test_a_run_is_written_while_work_goes_on(mlflow_url: str, tmp_path: Path) -> None:
    runs = MlflowRuns(mlflow_url, every_s=0.1)
    search = runs.open("log-written", "search", params={}, tags={"kind": "search"})
    spec = TrainingSpec(rank=8, pretrain=PretrainSpec(files=("/srv/code/*.py", "docs/*.md")))
    run = runs.open("log-written", "trial 0", params=flat(spec), tags={"dataset": "d"}, parent=search)
    with Took() as took:
        for step in range(1, 1501):
            run.metrics({"examples/loss": 1.0 / step, "examples/tokens_per_s": 5.0}, step)
    assert took.seconds < 1.0  # the server is not waited for
    give_up = time.monotonic() + 30
    client = MlflowClient(mlflow_url)
    while not run.run_id or len(client.get_metric_history(run.run_id, "examples/loss")) < 1500:
        assert time.monotonic() < give_up
        time.sleep(0.1)
    assert client.get_run(run.run_id).info.status == "RUNNING"
    page = tmp_path / "proposal.yaml"
    page.write_text("rank: 8")
    search.file(page)
    run.tag("state", "pruned")
    run.close("KILLED")
    search.close()
    search.close("FAILED")
    found, above = client.get_run(run.run_id), client.get_run(search.run_id)
    assert found.info.status == "KILLED" and above.info.status == "FINISHED"
    assert found.data.tags["mlflow.parentRunId"] == search.run_id and found.data.tags["state"] == "pruned"
    assert found.data.params["rank"] == "8" and found.data.params["adalora.initial_rank"] == "24"
    assert found.data.params["pretrain.files"] == "*.py, docs/*.md"
    assert [f.path for f in client.list_artifacts(search.run_id)] == ["proposal.yaml"]


@pytest.mark.servers
def test_a_killed_process_goes_on_with_its_run(mlflow_url: str, tmp_path: Path) -> None:
    code = """
        import os, signal, sys, time
        from pathlib import Path
        from pawl.registry.mlflow_runs import MlflowRuns

        run = MlflowRuns(sys.argv[1], every_s=0.05).open(
            "log-killed", "one", params={"rank": "4"}, tags={"candidate": "c"}, keep=Path(sys.argv[2])
        )
        run.metrics({"loss": 2.0}, 1)
        while not run.run_id or run._waiting:
            time.sleep(0.05)
        time.sleep(0.3)
        os.kill(os.getpid(), signal.SIGKILL)
    """
    keep = tmp_path / "c" / "run.id"
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code), mlflow_url, str(keep)], env=os.environ)
    assert done.returncode == -signal.SIGKILL
    client = MlflowClient(mlflow_url)
    first = kept_id(keep)
    assert client.get_run(first).info.status == "RUNNING"
    again = MlflowRuns(mlflow_url, every_s=0.05).open(
        "log-killed", "one", params={"rank": "4"}, tags={"candidate": "c"}, keep=keep
    )
    again.metrics({"loss": 1.0}, 2)
    again.close()
    assert again.run_id == first and client.get_run(first).info.status == "FINISHED"
    assert [(m.step, m.value) for m in client.get_metric_history(first, "loss")] == [(1, 2.0), (2, 1.0)]
    # A run that somebody removed does not come back.
    client.delete_run(first)
    other = MlflowRuns(mlflow_url).open("log-killed", "one", params={}, tags={}, keep=keep)
    other.close()
    assert other.run_id not in ("", first) and kept_id(keep) == other.run_id


@pytest.mark.servers
def test_a_server_that_comes_late_loses_nothing(
    mlflow_url: str, free_port: int, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "pawl.mlflow"):
        runs = MlflowRuns(f"http://127.0.0.1:{free_port}", every_s=0.05, again_s=0.2)
        run = runs.open("log-late", "one", params={"rank": "4"}, tags={})
        for step in range(10):
            run.metrics({"loss": float(step)}, step)
            time.sleep(0.05)
        assert run.run_id == ""
        forward(free_port, mlflow_url)
        run.close()
    found = MlflowClient(mlflow_url).get_metric_history(run.run_id, "loss")
    assert [(m.step, m.value) for m in found] == [(i, float(i)) for i in range(10)]
    assert len(caplog.records) == 1 and "the work goes on" in caplog.text


def test_without_a_server_there_is_one_warning_and_no_waiting(
    free_port: int, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    url = f"http://127.0.0.1:{free_port}"
    with caplog.at_level(logging.WARNING, "pawl.mlflow"):
        run = MlflowRuns(url, every_s=0.02, again_s=0.05).open("x", "one", params={}, tags={}, keep=tmp_path / "run.id")
        began = time.monotonic()
        for step in range(WAITING + 7):
            run.metrics({"loss": 1.0}, step)
        time.sleep(0.3)
        run.file(tmp_path / "nothing")
        run.close()
    assert time.monotonic() - began < 5
    assert [r.levelname for r in caplog.records] == ["WARNING"] * 2
    assert f"lacks {WAITING + 7} values" in caplog.text and url in caplog.text
    assert run.run_id == "" and not (tmp_path / "run.id").exists()


@pytest.mark.servers
def test_the_registered_version_links_to_the_run_that_training_wrote(mlflow_url: str, tmp_path: Path) -> None:
    run = MlflowRuns(mlflow_url, every_s=0.05).open("log-linked", "c", params={"method": "lora"}, tags={})
    for step in (1, 2, 4):
        run.metrics({"examples/loss": 1.0 / step}, step)
    run.close()
    registry = MlflowRegistry(mlflow_url)
    curve = [(step, 1.0 / step) for step in range(1, 6)]
    for _ in range(2):  # a registration that was tried twice
        same = registry.log_training(
            "log-linked", {"method": "x", "steps": "5"}, {"p": 0.5}, {"examples/loss": curve}, None, run.run_id
        )
    assert same == run.run_id
    client = MlflowClient(mlflow_url)
    assert sorted(m.step for m in client.get_metric_history(same, "examples/loss")) == [1, 2, 3, 4, 5]
    assert client.get_run(same).data.params == {"method": "lora", "steps": "5"}
    for gone in ("f" * 32, "never"):
        assert registry.log_training("log-linked", {}, {}, {}, None, gone) not in ("", gone, run.run_id)


def test_steps_are_named_by_their_stage() -> None:
    p = Progress(step=3, steps=9, loss=1.5, learning_rate=1e-3, tokens_per_s=400.0, stage="preferences")
    found = {"preferences/loss": 1.5, "preferences/learning_rate": 1e-3, "preferences/tokens_per_s": 400.0}
    assert progress_metrics(p) == found
    held = Progress(step=3, steps=9, loss=1.5, learning_rate=1e-3, tokens_per_s=400.0, memory_mb=700.0)
    assert progress_metrics(held)["examples/memory_mb"] == 700.0
