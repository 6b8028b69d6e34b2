"""The registry on an MLflow tracking server."""

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
from pawl.registry.adapter_hash import adapter_sha256
from pawl.registry.mlflow_errors import MISSING, mapped
from pawl.registry.port import REWRITTEN, LearntFrom, Packing, Version

KEY_TAG = "pawl_key"  # what a run is a record of
SHA_TAG = "adapter_sha256"
PAGE = 200
VALUE = 6000  # characters of a parameter
DESCRIPTION = 5000  # characters of a version's description
DIGEST = 36  # characters that MLflow keeps of a dataset's digest


class MlflowRegistry:
    """`Registry` on `url`, e.g. http://127.0.0.1:8720.

    An adapter is a LoggedModel of a run in the experiment named after the agent, so that the UI shows its metrics
    and its report beside it. Artifacts pass through the server (`--serve-artifacts`, its default).
    """

    def __init__(self, url: str) -> None:
        self._url = url.rstrip("/")
        # MLflow's own default retries a server that is down for minutes.
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
        os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")

    @cached_property
    def _client(self) -> Any:
        from mlflow import MlflowClient

        return MlflowClient(tracking_uri=self._url, registry_uri=self._url)

    def register(self, agent: str, adapter_dir: Path, lineage: Mapping[str, str], files: Mapping[str, Path]) -> Version:
        sha256 = adapter_sha256(adapter_dir)
        existing = self.find_by_sha256(agent, sha256)
        if existing is not None:
            return existing
        tags = {**lineage, SHA_TAG: sha256}
        with self._mapped(f"registering an adapter of {agent}"):
            experiment = self._experiment(agent)
            run_id = lineage.get("run_id") or self._finished_run(experiment, dict(lineage), {}, {})
            for name, path in files.items():
                self._attach(run_id, path, name)
            model = self._client.create_logged_model(experiment, name=agent, source_run_id=run_id, tags=tags)
            self._client.log_model_artifacts(model.model_id, str(adapter_dir))
            self._client.finalize_logged_model(model.model_id, "READY")
            self._ensure_registered_model(agent)
            # The version comes last: what is registered is whole, and a try that was cut off left only a model
            # that no version names.
            made = self._client.create_model_version(
                agent,
                f"models:/{model.model_id}",
                run_id=run_id,
                tags=tags,
                model_id=model.model_id,
                await_creation_for=0,  # its files are there already
            )
            return _version(made)

    def describe(self, version: Version, card: str, packing: Packing | None) -> None:
        from pawl.registry.mlflow_flavor import write

        with self._mapped(f"describing {version.adapter}"), tempfile.TemporaryDirectory() as made:
            folder = Path(made)
            (folder / "README.md").write_text(card)
            if packing is not None:
                write(folder, packing)
            source = str(self._client.get_model_version(version.agent, version.number).source)
            self._client.log_model_artifacts(source.removeprefix("models:/"), made)
            self._client.update_model_version(version.agent, version.number, shortened(card))

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

    def version(self, agent: str, number: str) -> Version:
        with self._mapped(f"reading version {number} of {agent}"):
            return _version(self._client.get_model_version(agent, number))

    def versions(self, agent: str) -> list[Version]:
        found: list[Version] = []
        token: str | None = None
        with self._mapped(f"listing the versions of {agent}"):
            while True:
                page = self._client.search_model_versions(f"name='{agent}'", max_results=PAGE, page_token=token)
                found += [_version(v) for v in page]
                token = page.token
                if not token:
                    return sorted(found, key=lambda v: int(v.number), reverse=True)

    def find_by_sha256(self, agent: str, sha256: str) -> Version | None:
        return next((v for v in self.versions(agent) if v.sha256 == sha256), None)

    def by_alias(self, agent: str, alias: str) -> Version | None:
        with self._mapped(f"reading {agent}@{alias}"):
            number = self._aliases(agent).get(alias)
            return None if number is None else _version(self._client.get_model_version(agent, number))

    def move_alias(self, agent: str, alias: str, number: str) -> None:
        with self._mapped(f"moving {agent}@{alias} to version {number}"):
            self._client.get_model_version(agent, number)  # an alias must not point at nothing
            self._client.set_registered_model_alias(agent, alias, number)

    def drop_alias(self, agent: str, alias: str) -> None:
        with self._mapped(f"dropping {agent}@{alias}"):
            if alias in self._aliases(agent):
                self._client.delete_registered_model_alias(agent, alias)

    def tag(self, agent: str, number: str, key: str, value: str) -> None:
        with self._mapped(f"tagging version {number} of {agent}"):
            self._client.set_model_version_tag(agent, number, key, value)

    def attach(self, agent: str, number: str, path: Path) -> str:
        version = self.version(agent, number)
        with self._mapped(f"attaching {path.name} to version {number} of {agent}"):
            self._attach(version.run_id, path, path.name)
            experiment = self._client.get_run(version.run_id).info.experiment_id
            return f"{self._url}/#/experiments/{experiment}/runs/{version.run_id}/artifacts/{path.name}"

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
        self._demand_up(f"logging {name} of {agent}")
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

    def download(self, version: Version, to: Path) -> Path:
        from mlflow.artifacts import download_artifacts

        to.mkdir(parents=True, exist_ok=True)
        with self._mapped(f"downloading {version.adapter}"):
            source = str(self._client.get_model_version(version.agent, version.number).source)
            # A `models:/` address would be looked up on MLflow's global tracking server, whatever is passed here.
            model = self._client.get_logged_model(source.removeprefix("models:/"))
            found = download_artifacts(artifact_uri=model.artifact_location, dst_path=str(to), tracking_uri=self._url)
            return Path(found)

    def url(self, version: Version) -> str:
        return f"{self._url}/#/models/{version.agent}/versions/{version.number}"

    def _experiment(self, agent: str) -> str:
        found = self._client.get_experiment_by_name(agent)
        return str(found.experiment_id) if found is not None else str(self._client.create_experiment(agent))

    def _ensure_registered_model(self, agent: str) -> None:
        from mlflow.exceptions import MlflowException

        try:
            self._client.create_registered_model(agent)
        except MlflowException as e:
            if e.error_code != "RESOURCE_ALREADY_EXISTS":
                raise

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

    def _aliases(self, agent: str) -> dict[str, str]:
        from mlflow.exceptions import MlflowException

        try:
            return {k: str(v) for k, v in self._client.get_registered_model(agent).aliases.items()}
        except MlflowException as e:
            if e.error_code in MISSING:
                return {}
            raise

    def _demand_up(self, doing: str) -> None:
        """ServerNotUp at once where nothing answers: the client's own tries, and loading it, take many seconds."""
        try:
            urllib.request.urlopen(f"{self._url}/health", timeout=3).close()  # noqa: S310 - from this machine's settings
        except OSError as e:
            raise ServerNotUp(f"{doing}: MLflow at {self._url} does not answer; start it, or look at its log") from e

    def _mapped(self, doing: str) -> AbstractContextManager[None]:
        return mapped(self._url, doing)


def shortened(card: str) -> str:
    """A card as MLflow's page of the version shows it: without the front matter, and whole lines of what it keeps."""
    text = card.split("---\n", 2)[2].lstrip() if card.startswith("---\n") and card.count("---\n") > 1 else card
    if len(text) <= DESCRIPTION:
        return text
    return text[: DESCRIPTION - 60].rpartition("\n")[0] + "\n\nThe rest is in README.md among the files."


def _input(dataset: LearntFrom) -> Any:
    """The dataset as MLflow's UI shows it beside the run: its examples stay where they are."""
    from mlflow.entities import Dataset, DatasetInput, InputTag

    source = json.dumps({"dataset": dataset.name, "sha256": dataset.fingerprint})
    digest = dataset.fingerprint[:DIGEST]
    profile = json.dumps(dataset.figures)
    made = Dataset(name=dataset.name, digest=digest, source_type="pawl", source=source, profile=profile)
    return DatasetInput(made, [InputTag("mlflow.data.context", "training")])


def _version(found: Any) -> Version:
    tags = {str(k): str(v) for k, v in found.tags.items()}
    return Version(
        agent=found.name, number=str(found.version), sha256=tags.get(SHA_TAG, ""), tags=tags, run_id=found.run_id or ""
    )
