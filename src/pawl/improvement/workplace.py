"""What a step needs open, and where a candidate's evidence lies."""

from __future__ import annotations

import hashlib
import socket
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from pawl import bootstrap
from pawl.errors import ConfigError, LakeError
from pawl.fleet.spec import AgentSpec, FleetSpec
from pawl.fleet.training import TrainingSpec
from pawl.monitoring.progress import ProgressFile
from pawl.rollout.control import ControlStore
from pawl.settings import Settings

if TYPE_CHECKING:
    from pawl.lake.parquet_lake import ParquetLake
    from pawl.registry.port import Registry
    from pawl.registry.run_log import RunLogs
    from pawl.rollout.events import Events
    from pawl.workers.port import Workers

T = TypeVar("T")


@dataclass(frozen=True)
class Workplace:
    """Ports opened at first use, for one agent."""

    settings: Settings
    agent_name: str

    @cached_property
    def fleet(self) -> FleetSpec:
        return bootstrap.fleet(self.settings)

    @cached_property
    def agent(self) -> AgentSpec:
        return self.fleet.agent(self.agent_name)

    @cached_property
    def control(self) -> ControlStore:
        return bootstrap.control(self.settings)

    @cached_property
    def lake(self) -> ParquetLake:
        return bootstrap.lake(self.settings)

    @cached_property
    def registry(self) -> Registry:
        return bootstrap.registry(self.settings)

    @cached_property
    def runs(self) -> RunLogs:
        return bootstrap.runs(self.settings)

    @cached_property
    def events(self) -> Events:
        return bootstrap.events(self.settings)

    @cached_property
    def workers(self) -> Workers:
        return bootstrap.workers(self.settings)

    @property
    def timeline(self) -> Path:
        return self.settings.home / "timeline.jsonl"

    @property
    def progress(self) -> ProgressFile:
        return ProgressFile(self.settings.home / "progress.json")

    def __reduce__(self) -> tuple[Callable[..., Workplace], tuple[dict[str, Any], str]]:
        """Pickled without its ports: another process opens its own, by its own addresses with passwords and keys."""
        given = self.settings.model_dump(exclude={"control_url", "api_key"})
        return _elsewhere, ({k: v.absolute() if isinstance(v, Path) else v for k, v in given.items()}, self.agent_name)

    def candidate(self, dataset_fingerprint: str, spec: TrainingSpec, beginning: str) -> Candidate:
        """The folder of one training run: the same data, spec and beginning always give the same folder.

        `beginning`: the key of all else that it is made of (`starting.Beginning`).
        """
        key = hashlib.sha256(f"{dataset_fingerprint}\0{spec.model_dump_json()}\0{beginning}".encode()).hexdigest()[:12]
        return Candidate(self.settings.home / "candidates" / f"{self.agent_name}-{key}")


def _elsewhere(given: dict[str, Any], agent: str) -> Workplace:
    settings = Settings(**given)
    if not settings.home.is_dir():
        problem = f"{settings.home} is not there: mount the folder that the machine which began this has as PAWL_HOME"
        raise ConfigError(f"the machine {socket.gethostname()}", [problem])
    return Workplace(settings, agent)


@dataclass(frozen=True)
class Candidate:
    """One challenger's evidence on disk; every file is replaced atomically."""

    folder: Path

    @property
    def id(self) -> str:
        return self.folder.name

    @property
    def adapter(self) -> Path:
        return self.folder / "training" / "adapter"

    @property
    def run_file(self) -> Path:
        """Keeps the id of the experiment run that training writes, so that a resumed one goes on with it."""
        return self.folder / "run.id"

    def write(self, name: str, value: object) -> None:
        """Store a value as JSON."""
        self.folder.mkdir(parents=True, exist_ok=True)
        part = self.folder / f"{name}.part"
        part.write_bytes(msgspec.json.encode(value, order="deterministic"))
        part.replace(self.folder / f"{name}.json")

    def has(self, name: str) -> bool:
        """Whether that value was stored."""
        return (self.folder / f"{name}.json").exists()

    def read(self, name: str, kind: type[T]) -> T:
        """A stored value. LakeError where it is missing or unreadable."""
        path = self.folder / f"{name}.json"
        try:
            return msgspec.json.decode(path.read_bytes(), type=kind)
        except (OSError, msgspec.DecodeError) as e:
            raise LakeError(f"{path} cannot be read ({e}); run the improvement flow again to make it anew") from e
