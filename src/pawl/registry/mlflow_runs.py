"""Runs on an MLflow tracking server, written from a thread of their own."""

from __future__ import annotations

import logging
import os
import time
import urllib.request
from collections import deque
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from threading import Event, Lock, Thread
from typing import Any, Literal

from pawl.curation.files import write_whole
from pawl.registry.run_log import Known, Status, kept_id

log = logging.getLogger("pawl.mlflow")

# What waits for the server at most: a day of training at a step a second, two megabytes. More is counted and dropped.
WAITING = 20_000
VALUE = 6000  # characters of a parameter that MLflow keeps
BATCH = 1000  # metrics in one call: the server's limit
EVERY_S = 2.0
AGAIN_S = 15.0  # after a failure
CLOSE_S = 15.0
# Answers that no repetition changes.
_REFUSED = ("INVALID_PARAMETER_VALUE", "BAD_REQUEST", "RESOURCE_DOES_NOT_EXIST", "PERMISSION_DENIED", "NOT_FOUND")

Outcome = Literal["done", "later", "never"]
Point = tuple[str, float, int, int]  # name, value, step, epoch milliseconds


class MlflowRuns:
    """`RunLogs` on `url`, e.g. http://127.0.0.1:8720: one experiment for each agent, as the registry has it."""

    def __init__(self, url: str, *, every_s: float = EVERY_S, again_s: float = AGAIN_S) -> None:
        """Writes every `every_s` seconds; after a failure tries again in `again_s`."""
        self._url, self._every_s, self._again_s = url.rstrip("/"), every_s, again_s
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
        os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")

    def open(
        self,
        experiment: str,
        name: str,
        *,
        params: Mapping[str, str],
        tags: Mapping[str, str],
        keep: Path | None = None,
        parent: Known | None = None,
    ) -> MlflowRun:
        pace = (self._every_s, self._again_s)
        return MlflowRun(self._url, experiment, name, dict(params), dict(tags), keep, parent, pace)


class MlflowRun:
    """`RunLog`: what is logged waits in memory, bounded, until the thread has brought it to the server."""

    def __init__(
        self,
        url: str,
        experiment: str,
        name: str,
        params: dict[str, str],
        tags: dict[str, str],
        keep: Path | None,
        parent: Known | None,
        pace: tuple[float, float],
    ) -> None:
        # Imported here and not in the thread: the trainer imports as much at the same time, and both would wait on
        # each other's half-made modules.
        from mlflow import MlflowClient

        self._url, self._experiment, self._name = url, experiment, name
        self._every_s, self._again_s = pace
        self._client: Any = MlflowClient(tracking_uri=url)
        self._params, self._tags, self._keep, self._parent = params, tags, keep, parent
        self._run_id = ""
        self._waiting: deque[Point] = deque()
        self._new_tags: dict[str, str] = {}
        self._files: list[Path] = []
        self._lock, self._closing = Lock(), Event()
        self._dropped, self._complained, self._not_before = 0, False, 0.0
        self._status: Status = "FINISHED"
        self._thread = Thread(target=self._work, name="mlflow-run", daemon=True)
        self._thread.start()

    @property
    def run_id(self) -> str:
        return self._run_id

    def metrics(self, values: Mapping[str, float], step: int = 0) -> None:
        now = int(time.time() * 1000)
        with self._lock:
            if len(self._waiting) + len(values) > WAITING:
                self._dropped += len(values)
                return
            self._waiting.extend((k, float(v), step, now) for k, v in values.items())

    def tag(self, key: str, value: str) -> None:
        with self._lock:
            self._new_tags[key] = value

    def file(self, path: Path) -> None:
        with self._lock:
            self._files.append(path)

    def close(self, status: Status = "FINISHED") -> None:
        if self._closing.is_set():
            return
        self._status = status
        self._closing.set()
        self._thread.join(CLOSE_S)
        lost = self._dropped + len(self._waiting)
        if lost:
            log.warning(
                "MLflow lacks %d values of the run %s (%s); the work itself is whole", lost, self._name, self._url
            )

    def _work(self) -> None:
        while not self._closing.wait(self._every_s):
            if time.monotonic() >= self._not_before:
                self._bring()
        if self._bring():
            self._tried(self._end)

    def _bring(self) -> bool:
        """Bring everything that waits; False where the server does not take it now."""
        if not self._run_id and self._tried(self._begin) != "done":
            return False
        if self._params:
            if self._tried(self._send_params) == "later":
                return False
            self._params = {}
        while self._waiting or self._new_tags or self._files:
            with self._lock:
                points = [self._waiting.popleft() for _ in range(min(BATCH, len(self._waiting)))]
                tags, self._new_tags = self._new_tags, {}
                files, self._files = self._files, []
            outcome = self._tried(partial(self._send, points, tags, files))
            if outcome == "later":
                with self._lock:
                    self._waiting.extendleft(reversed(points))
                    self._new_tags = {**tags, **self._new_tags}
                    self._files = files + self._files
                return False
            if outcome == "never":
                self._dropped += len(points)
        return True

    def _begin(self) -> bool:
        if self._parent is not None and not self._parent.run_id:
            return False  # it comes first
        found = self._client.get_experiment_by_name(self._experiment)
        experiment = found.experiment_id if found is not None else self._client.create_experiment(self._experiment)
        run_id = self._continued(str(experiment))
        if run_id:
            self._client.update_run(run_id, status="RUNNING")
            self._new_tags = {**self._tags, **self._new_tags}
        else:
            tags = {**self._tags, **({"mlflow.parentRunId": self._parent.run_id} if self._parent else {})}
            run_id = str(self._client.create_run(str(experiment), run_name=self._name, tags=tags).info.run_id)
        if self._keep is not None:
            write_whole(self._keep, run_id.encode())
        self._run_id = run_id
        return True

    def _continued(self, experiment: str) -> str:
        from mlflow.exceptions import MlflowException

        before = kept_id(self._keep) if self._keep is not None else ""
        if not before:
            return ""
        try:
            info = self._client.get_run(before).info
        except MlflowException as e:
            if e.error_code in _REFUSED:
                return ""  # another server's, or removed
            raise
        return before if info.lifecycle_stage == "active" and info.experiment_id == experiment else ""

    def _send_params(self) -> bool:
        from mlflow.entities import Param

        self._client.log_batch(self._run_id, params=[Param(k, v[:VALUE]) for k, v in self._params.items()])
        return True

    def _send(self, points: list[Point], tags: dict[str, str], files: list[Path]) -> bool:
        from mlflow.entities import Metric, RunTag

        if points or tags:
            metrics = [Metric(name, value, at, step) for name, value, step, at in points]
            self._client.log_batch(self._run_id, metrics=metrics, tags=[RunTag(k, v) for k, v in tags.items()])
        for path in files:
            if path.exists():
                self._client.log_artifact(self._run_id, str(path))
        return True

    def _end(self) -> bool:
        self._client.set_terminated(self._run_id, self._status)
        return True

    def _tried(self, do: Callable[[], bool]) -> Outcome:
        """Does one thing at the server. `never`: it was refused, and would be again."""
        try:
            # A server that is down is found out at once, not after the client's own repetitions.
            urllib.request.urlopen(f"{self._url}/health", timeout=3).close()  # noqa: S310 - from this machine's settings
            return "done" if do() else "later"
        except Exception as e:  # whatever it is: the work that is logged matters more
            self._complain(e)
            self._not_before = time.monotonic() + self._again_s
            return "never" if getattr(e, "error_code", "") in _REFUSED else "later"

    def _complain(self, e: Exception) -> None:
        if not self._complained:
            self._complained = True
            text = "MLflow at %s does not take the run %s (%s); the work goes on, and it is tried again every %g s"
            log.warning(text, self._url, self._name, e, self._again_s)
