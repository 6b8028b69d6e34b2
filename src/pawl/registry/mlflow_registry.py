"""The registry on an MLflow tracking server."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pawl.registry.adapter_hash import adapter_sha256
from pawl.registry.mlflow_errors import MISSING
from pawl.registry.mlflow_experiments import PAGE, MlflowExperiments
from pawl.registry.port import Packing, Version

SHA_TAG = "adapter_sha256"
DESCRIPTION = 5000  # characters of a version's description


class MlflowRegistry(MlflowExperiments):
    """`Registry` on `url`, e.g. http://127.0.0.1:8720.

    An adapter is a LoggedModel of a run in the experiment named after the agent, so that the UI shows its metrics
    and its report beside it. Artifacts pass through the server (`--serve-artifacts`, its default).
    """

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
        return self.link_to(version, path.name)

    def link_to(self, version: Version, name: str) -> str:
        with self._mapped(f"reading the run of {version.adapter}"):
            experiment = self._client.get_run(version.run_id).info.experiment_id
            return f"{self._url}/#/experiments/{experiment}/runs/{version.run_id}/artifacts/{name}"

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

    def _ensure_registered_model(self, agent: str) -> None:
        from mlflow.exceptions import MlflowException

        try:
            self._client.create_registered_model(agent)
        except MlflowException as e:
            if e.error_code != "RESOURCE_ALREADY_EXISTS":
                raise

    def _aliases(self, agent: str) -> dict[str, str]:
        from mlflow.exceptions import MlflowException

        try:
            return {k: str(v) for k, v in self._client.get_registered_model(agent).aliases.items()}
        except MlflowException as e:
            if e.error_code in MISSING:
                return {}
            raise


def shortened(card: str) -> str:
    """A card as MLflow's page of the version shows it: without the front matter, and whole lines of what it keeps."""
    text = card.split("---\n", 2)[2].lstrip() if card.startswith("---\n") and card.count("---\n") > 1 else card
    if len(text) <= DESCRIPTION:
        return text
    return text[: DESCRIPTION - 60].rpartition("\n")[0] + "\n\nThe rest is in README.md among the files."


def _version(found: Any) -> Version:
    tags = {str(k): str(v) for k, v in found.tags.items()}
    return Version(
        agent=found.name, number=str(found.version), sha256=tags.get(SHA_TAG, ""), tags=tags, run_id=found.run_id or ""
    )
