"""The registry in memory: for tests, held to the same contract as the real one."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from pawl.errors import NotThere
from pawl.registry.adapter_hash import adapter_sha256
from pawl.registry.port import REWRITTEN, LearntFrom, Packing, Version


class MemoryRegistry:
    """`Registry` that forgets everything with the process."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._versions: dict[str, list[Version]] = {}
        self._folders: dict[tuple[str, str], dict[str, bytes]] = {}
        self._aliases: dict[tuple[str, str], str] = {}
        self.attached: dict[tuple[str, str], dict[str, bytes]] = {}
        self.runs: dict[str, tuple[dict[str, str], dict[str, float]]] = {}
        self.packed: dict[tuple[str, str], Packing | None] = {}
        self.datasets: dict[str, LearntFrom | None] = {}
        self._agents: dict[str, str] = {}  # by run
        self.tables: dict[tuple[str, str], dict[str, list[Any]]] = {}

    def register(self, agent: str, adapter_dir: Path, lineage: Mapping[str, str], files: Mapping[str, Path]) -> Version:
        sha256 = adapter_sha256(adapter_dir)
        with self._lock:
            existing = self.find_by_sha256(agent, sha256)
            if existing is not None:
                return existing
            number = str(len(self._versions.get(agent, [])) + 1)
            run_id = lineage.get("run_id") or uuid.uuid4().hex
            tags = {**lineage, "adapter_sha256": sha256}
            version = Version(agent=agent, number=number, sha256=sha256, tags=tags, run_id=run_id)
            self._versions.setdefault(agent, []).append(version)
            self._folders[agent, number] = {p.name: p.read_bytes() for p in adapter_dir.iterdir() if p.is_file()}
            self.attached[agent, number] = {name: path.read_bytes() for name, path in files.items()}
            return version

    def describe(self, version: Version, card: str, packing: Packing | None) -> None:
        with self._lock:
            self.version(version.agent, version.number)
            self._folders[version.agent, version.number]["README.md"] = card.encode()
            self.packed[version.agent, version.number] = packing

    def log_training(
        self,
        agent: str,
        params: Mapping[str, str],
        metrics: Mapping[str, float],
        curves: Mapping[str, Sequence[tuple[int, float]]],
        dataset: LearntFrom | None = None,
        run_id: str = "",
    ) -> str:
        with self._lock:
            known_params, known_metrics = self.runs.get(run_id, ({}, {}))
            run_id = run_id if run_id in self.runs else uuid.uuid4().hex
            self.datasets[run_id] = dataset
            self._agents[run_id] = agent
            last = {k: c[-1][1] for k, c in curves.items() if c}
            self.runs[run_id] = ({**known_params, **params}, {**known_metrics, **last, **metrics})
        return run_id

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
        run_id = f"{agent}-{key}"
        with self._lock:
            if run_id not in self.runs:
                self.runs[run_id] = (dict(params), dict(metrics))
                self.attached[agent, run_id] = {n: path.read_bytes() for n, path in files.items()}
                for table, columns in tables.items():
                    self.log_table(run_id, table, columns)
        return f"memory:{agent}/runs/{run_id}"

    def log_table(self, run_id: str, name: str, columns: Mapping[str, Sequence[Any]]) -> None:
        with self._lock:
            self.tables.setdefault((run_id, name), {k: list(v) for k, v in columns.items()})

    def version(self, agent: str, number: str) -> Version:
        with self._lock:
            for version in self._versions.get(agent, []):
                if version.number == number:
                    return version
        raise NotThere(f"the registry has no version {number} of {agent}")

    def versions(self, agent: str) -> list[Version]:
        with self._lock:
            return self._versions.get(agent, [])[::-1]

    def find_by_sha256(self, agent: str, sha256: str) -> Version | None:
        return next((v for v in self.versions(agent) if v.sha256 == sha256), None)

    def by_alias(self, agent: str, alias: str) -> Version | None:
        with self._lock:
            number = self._aliases.get((agent, alias))
            return None if number is None else self.version(agent, number)

    def move_alias(self, agent: str, alias: str, number: str) -> None:
        with self._lock:
            self._aliases[agent, alias] = self.version(agent, number).number

    def drop_alias(self, agent: str, alias: str) -> None:
        with self._lock:
            self._aliases.pop((agent, alias), None)

    def tag(self, agent: str, number: str, key: str, value: str) -> None:
        with self._lock:
            old = self.version(agent, number)
            new = msgspec.structs.replace(old, tags={**old.tags, key: value})
            self._versions[agent][int(number) - 1] = new

    def attach(self, agent: str, number: str, path: Path) -> str:
        with self._lock:
            version = self.version(agent, number)
            self.attached[agent, number][path.name] = path.read_bytes()
            return self.link_to(version, path.name)

    def link_to(self, version: Version, name: str) -> str:
        return f"{self.url(version)}/{name}"

    def rewrite(self, agent: str, change: Callable[[str, bytes], bytes | None]) -> list[str]:
        made = []
        with self._lock:
            for version in self._versions.get(agent, []):
                files = self.attached[agent, version.number]
                for name, content in files.items():
                    if name.endswith(REWRITTEN) and (changed := change(name, content)) is not None:
                        files[name] = changed
                        made.append(f"{self.url(version)}/{name}")
            for (run_id, name), columns in self.tables.items():
                if self._agents.get(run_id) != agent:
                    continue
                rows = [list(r) for r in zip(*columns.values(), strict=True)]
                changed = change(name, msgspec.json.encode({"columns": list(columns), "data": rows}))
                if changed is not None:
                    table = msgspec.json.decode(changed)
                    cells = list(zip(*table["data"], strict=True)) or [()] * len(table["columns"])
                    self.tables[run_id, name] = {c: list(v) for c, v in zip(table["columns"], cells, strict=True)}
                    made.append(f"memory:{run_id}/{name}")
        return made

    def download(self, version: Version, to: Path) -> Path:
        with self._lock:
            self.version(version.agent, version.number)
            to.mkdir(parents=True, exist_ok=True)
            for name, content in self._folders[version.agent, version.number].items():
                (to / name).write_bytes(content)
            return to

    def url(self, version: Version) -> str:
        return f"memory:{version.agent}/{version.number}"
