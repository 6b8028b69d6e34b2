"""Runs on an MLflow tracking server: what training, judging and comparing leave there."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import cached_property
from pathlib import Path
from typing import Any

from pawl.errors import ServerNotUp
from pawl.registry.mlflow_errors import MISSING, mapped
from pawl.registry.port import REWRITTEN, LearntFrom

KEY_TAG = "pawl_key"  # what a run is a record of
PAGE = 200
VALUE = 6000  # characters of a parameter
DIGEST = 36  # characters that MLflow keeps of a dataset's digest


class MlflowExperiments:
    """The experiments on `url`, e.g. http://127.0.0.1:8720, each named after its agent."""

    def __init__(self, url: str) -> None:
        self._url = url.rstrip("/")
        # MLflow's own default retries a server that is down for minutes.
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
        os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")

    @cached_property
    def _client(self) -> Any:
        from mlflow import MlflowClient

        return MlflowClient(tracking_uri=self._url, registry_uri=self._url)

    def log_training(
        self,
        agent: str,
        params: Mapping[str, str],
        metrics: Mapping[str, float],
        curves: Mapping[str, Sequence[tuple[int, float]]],
        dataset: LearntFrom | None = None,
        run_id: str = "",
    ) -> str:
        with self._mapped(f"logging the training of {agent}"):
            return self._finished_run(self._experiment(agent), params, metrics, curves, dataset, run_id)

    def log_run(
        self,
        agent: str,
        name: str,
        *,
        key: str,
        params: Mapping[str, str],
        metrics: Mapping[str, float],
        files: Mapping[str, Path],
        tables: Mapping[str, Mapping[str, Sequence[Any]]],
    ) -> str:
        demand_up(self._url, f"logging {name} of {agent}")
        with self._mapped(f"logging {name} of {agent}"):
            experiment = self._experiment(agent)
            found = self._client.search_runs([experiment], f"tags.{KEY_TAG} = '{key}'", max_results=1)
            run_id = found[0].info.run_id if found else ""
            if not (found and found[0].info.status == "FINISHED"):
                made = self._client.create_run(experiment, run_name=name, tags={KEY_TAG: key}) if not found else None
                run_id = made.info.run_id if made is not None else run_id
                for file, path in files.items():
                    self._attach(run_id, path, file)
                for table, columns in tables.items():
                    self.log_table(run_id, table, columns)
                # Finished comes last: whatever says so is whole.
                self._finished_run(experiment, params, metrics, {}, run_id=run_id)
        return f"{self._url}/#/experiments/{experiment}/runs/{run_id}"

    def log_table(self, run_id: str, name: str, columns: Mapping[str, Sequence[Any]]) -> None:
        with self._mapped(f"logging the table {name}"):
            # A second one would be appended to the first.
            if name not in {a.path for a in self._client.list_artifacts(run_id)}:
                self._client.log_table(run_id, {k: list(v) for k, v in columns.items()}, name)

    def rewrite(self, agent: str, change: Callable[[str, bytes], bytes | None]) -> list[str]:
        from mlflow.entities import ViewType

        made: list[str] = []
        with self._mapped(f"rewriting what hangs on the runs of {agent}"), tempfile.TemporaryDirectory() as folder:
            found = self._client.get_experiment_by_name(agent)
            token: str | None = None
            while found is not None:
                # Deleted ones too: MLflow keeps their files until somebody collects the garbage.
                page = self._client.search_runs([found.experiment_id], "", ViewType.ALL, PAGE, page_token=token)
                for run_id in (r.info.run_id for r in page):
                    for path in self._files(run_id, ""):
                        local = Path(self._client.download_artifacts(run_id, path, folder))
                        if (changed := change(local.name, local.read_bytes())) is None:
                            continue
                        local.write_bytes(changed)
                        self._client.log_artifact(run_id, str(local), path.rpartition("/")[0] or None)
                        made.append(f"{self._url}/#/experiments/{found.experiment_id}/runs/{run_id}/artifacts/{path}")
                token = page.token
                if not token:
                    break
        return made

    def _experiment(self, agent: str) -> str:
        found = self._client.get_experiment_by_name(agent)
        return str(found.experiment_id) if found is not None else str(self._client.create_experiment(agent))

    def _finished_run(
        self,
        experiment: str,
        params: Mapping[str, str],
        metrics: Mapping[str, float],
        curves: Mapping[str, Sequence[tuple[int, float]]],
        dataset: LearntFrom | None = None,
        run_id: str = "",
    ) -> str:
        from mlflow.entities import Metric, Param

        known = self._known_run(experiment, run_id)
        now = int(time.time() * 1000)
        points = [Metric(k, float(v), now, 0) for k, v in metrics.items()]
        for name, curve in curves.items():
            there = {m.step for m in self._client.get_metric_history(run_id, name)} if known else set()
            points += [Metric(name, float(v), now, step) for step, v in curve if step not in there]
        if known is None:
            run_id = str(self._client.create_run(experiment).info.run_id)
        # A parameter that a run has cannot change.
        new = [Param(k, str(v)[:VALUE]) for k, v in params.items() if known is None or k not in known.data.params]
        self._client.log_batch(run_id, params=new)
        for start in range(0, len(points), 1000):  # the server's limit a batch
            self._client.log_batch(run_id, metrics=points[start : start + 1000])
        if dataset is not None:
            self._client.log_inputs(run_id, datasets=[_input(dataset)])
        self._client.set_terminated(run_id, "FINISHED")
        return run_id

    def _known_run(self, experiment: str, run_id: str) -> Any:
        """The run of that id in the experiment; None where there is none, or it was removed."""
        from mlflow.exceptions import MlflowException

        try:
            found = self._client.get_run(run_id) if run_id else None
        except MlflowException as e:
            if e.error_code in (*MISSING, "INVALID_PARAMETER_VALUE"):
                return None
            raise
        usable = found is not None and found.info.lifecycle_stage == "active" and found.info.experiment_id == experiment
        return found if usable else None

    def _files(self, run_id: str, folder: str) -> Iterator[str]:
        """Paths of a run's pages and tables, those in folders too."""
        for entry in self._client.list_artifacts(run_id, folder or None):
            if entry.is_dir:
                yield from self._files(run_id, entry.path)
            elif entry.path.endswith(REWRITTEN):
                yield entry.path

    def _attach(self, run_id: str, path: Path, name: str) -> None:
        if path.name == name:
            self._client.log_artifact(run_id, str(path))
            return
        # MLflow names an artifact after its file.
        with tempfile.TemporaryDirectory() as folder:
            self._client.log_artifact(run_id, str(shutil.copyfile(path, Path(folder) / name)))

    def _mapped(self, doing: str) -> AbstractContextManager[None]:
        return mapped(self._url, doing)


def demand_up(url: str, doing: str) -> None:
    """ServerNotUp at once where nothing answers: the client's own tries, and loading it, take many seconds."""
    try:
        urllib.request.urlopen(f"{url}/health", timeout=3).close()  # noqa: S310 - from this machine's settings
    except OSError as e:
        raise ServerNotUp(f"{doing}: MLflow at {url} does not answer; start it, or look at its log") from e


def _input(dataset: LearntFrom) -> Any:
    """The dataset as MLflow's UI shows it beside the run: its examples stay where they are."""
    from mlflow.entities import Dataset, DatasetInput, InputTag

    source = json.dumps({"dataset": dataset.name, "sha256": dataset.fingerprint})
    digest = dataset.fingerprint[:DIGEST]
    profile = json.dumps(dataset.figures)
    made = Dataset(name=dataset.name, digest=digest, source_type="pawl", source=source, profile=profile)
    return DatasetInput(made, [InputTag("mlflow.data.context", "training")])
