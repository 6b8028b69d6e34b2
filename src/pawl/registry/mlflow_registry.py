"""The registry on an MLflow tracking server."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

from pawl.errors import ServerNotUp
from pawl.registry.adapter_hash import adapter_sha256
from pawl.registry.port import Version, adapter_name

# A dead server should be named within seconds, not after the client's minutes of retries.
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "3")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "30")


class MlflowRegistry:
    """Implements `Registry`: a registered model an agent, a LoggedModel an adapter, its lineage as tags."""

    def __init__(self, tracking_uri: str) -> None:
        self._uri = tracking_uri

    @cached_property
    def _client(self) -> Any:
        from mlflow import MlflowClient

        return MlflowClient(self._uri, self._uri)

    def register(self, agent: str, adapter: Path, lineage: Mapping[str, str], files: Mapping[str, Path]) -> Version:
        sha256 = adapter_sha256(adapter)
        for known in self.versions(agent):
            if known.sha256 == sha256:
                return known
        with self._errors(agent):
            experiment = self._experiment(agent)
            run = self._client.create_run(experiment, run_name=f"challenger {sha256[:8]}", tags=dict(lineage))
            run_id = run.info.run_id
            model = self._client.create_logged_model(
                experiment, name=f"{agent}-{sha256[:8]}", source_run_id=run_id, model_type="lora adapter"
            )
            self._client.log_model_artifacts(model.model_id, str(adapter))
            self._client.finalize_logged_model(model.model_id, "READY")
            for name, path in files.items():
                self._log(run_id, path, name)
            self._client.set_terminated(run_id)
            self._ensure_model(agent)
            made = self._client.create_model_version(
                agent,
                f"models:/{model.model_id}",
                run_id=run_id,
                model_id=model.model_id,
                tags={**lineage, "adapter_sha256": sha256, "report": self._artifacts_url(experiment, run_id)},
            )
        return self.version(agent, str(made.version))

    def log_metrics(self, version: Version, metrics: Mapping[str, float]) -> None:
        """Numbers of a version, shown in its run."""
        with self._errors(version.agent):
            run_id = self._client.get_model_version(version.agent, version.number).run_id
            for name, value in metrics.items():
                self._client.log_metric(run_id, name, value)

    def version(self, agent: str, number: str) -> Version:
        with self._errors(f"{agent} version {number}"):
            return self._read(self._client.get_model_version(agent, number))

    def versions(self, agent: str) -> list[Version]:
        with self._errors(agent):
            found = self._client.search_model_versions(f"name='{agent}'", max_results=1000)
            return sorted((self._read(v) for v in found), key=lambda v: -int(v.number))

    def by_alias(self, agent: str, alias: str) -> Version | None:
        try:
            with self._errors(agent):
                return self._read(self._client.get_model_version_by_alias(agent, alias))
        except KeyError:
            return None

    def move_alias(self, agent: str, alias: str, number: str) -> None:
        with self._errors(f"{agent} version {number}"):
            self._client.set_registered_model_alias(agent, alias, number)

    def drop_alias(self, agent: str, alias: str) -> None:
        with self._errors(agent):
            self._client.delete_registered_model_alias(agent, alias)

    def tag(self, agent: str, number: str, key: str, value: str) -> None:
        with self._errors(f"{agent} version {number}"):
            self._client.set_model_version_tag(agent, number, key, value)

    def attach(self, agent: str, number: str, path: Path) -> None:
        with self._errors(f"{agent} version {number}"):
            run_id = self._client.get_model_version(agent, number).run_id
            self._client.log_artifact(run_id, str(path))

    def download(self, version: Version, to: Path) -> Path:
        import mlflow
        from mlflow.artifacts import download_artifacts

        # `models:/` addresses are resolved at the process's own servers, whatever the client was given.
        mlflow.set_tracking_uri(self._uri)
        mlflow.set_registry_uri(self._uri)
        to.mkdir(parents=True, exist_ok=True)
        with self._errors(version.adapter):
            return Path(download_artifacts(f"models:/{version.agent}/{version.number}", dst_path=str(to)))

    def url(self, version: Version) -> str:
        return f"{self._uri}/#/models/{version.agent}/versions/{version.number}"

    def _read(self, found: Any) -> Version:
        tags = {str(k): str(v) for k, v in found.tags.items()}
        number, sha256 = str(found.version), tags.get("adapter_sha256", "")
        name = adapter_name(found.name, number, sha256)
        return Version(agent=found.name, number=number, adapter=name, sha256=sha256, tags=tags)

    def _experiment(self, agent: str) -> str:
        known = self._client.get_experiment_by_name(agent)
        return str(known.experiment_id if known else self._client.create_experiment(agent))

    def _ensure_model(self, agent: str) -> None:
        from mlflow.exceptions import MlflowException

        try:
            self._client.create_registered_model(agent)
        except MlflowException as e:
            if e.error_code != "RESOURCE_ALREADY_EXISTS":
                raise

    def _log(self, run_id: str, path: Path, name: str) -> None:
        if path.name == name:
            self._client.log_artifact(run_id, str(path))
            return
        self._client.log_text(run_id, path.read_text(encoding="utf-8"), name)

    def _artifacts_url(self, experiment: str, run_id: str) -> str:
        return f"{self._uri}/#/experiments/{experiment}/runs/{run_id}/artifacts"

    @contextmanager
    def _errors(self, what: str) -> Iterator[None]:
        """The one place where the vendor's exceptions become ours."""
        from mlflow.exceptions import MlflowException
        from requests.exceptions import RequestException

        try:
            yield
        except RequestException as e:
            raise ServerNotUp(f"MLflow at {self._uri} does not answer; start it, or set PAWL_MLFLOW_PORT") from e
        except MlflowException as e:
            if e.error_code == "RESOURCE_DOES_NOT_EXIST" or "not found" in str(e).lower():
                raise KeyError(what) from e
            raise ServerNotUp(f"MLflow at {self._uri} refused ({e.error_code}): {e}") from e
