"""A registry in memory and a folder: held to the same contract as the real one, used where no server is wanted."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

import msgspec

from pawl.registry.adapter_hash import adapter_sha256
from pawl.registry.port import Version, adapter_name


class MemoryRegistry:
    """Implements `Registry`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._versions: dict[tuple[str, str], Version] = {}
        self._aliases: dict[tuple[str, str], str] = {}

    def register(self, agent: str, adapter: Path, lineage: Mapping[str, str], files: Mapping[str, Path]) -> Version:
        sha256 = adapter_sha256(adapter)
        for known in self.versions(agent):
            if known.sha256 == sha256:
                return known
        number = str(len(self.versions(agent)) + 1)
        tags = {**lineage, "adapter_sha256": sha256}
        made = Version(
            agent=agent, number=number, adapter=adapter_name(agent, number, sha256), sha256=sha256, tags=tags
        )
        shutil.copytree(adapter, self._home(made) / "adapter")
        for name, path in files.items():
            (self._home(made) / "files").mkdir(exist_ok=True)
            shutil.copy(path, self._home(made) / "files" / name)
        self._versions[agent, number] = made
        return made

    def version(self, agent: str, number: str) -> Version:
        return self._versions[agent, number]

    def versions(self, agent: str) -> list[Version]:
        mine = [v for v in self._versions.values() if v.agent == agent]
        return sorted(mine, key=lambda v: -int(v.number))

    def by_alias(self, agent: str, alias: str) -> Version | None:
        number = self._aliases.get((agent, alias))
        return None if number is None else self.version(agent, number)

    def move_alias(self, agent: str, alias: str, number: str) -> None:
        self._aliases[agent, alias] = self.version(agent, number).number

    def drop_alias(self, agent: str, alias: str) -> None:
        self._aliases.pop((agent, alias), None)

    def tag(self, agent: str, number: str, key: str, value: str) -> None:
        old = self.version(agent, number)
        self._versions[agent, number] = msgspec.structs.replace(old, tags={**old.tags, key: value})

    def attach(self, agent: str, number: str, path: Path) -> None:
        home = self._home(self.version(agent, number)) / "files"
        home.mkdir(exist_ok=True)
        shutil.copy(path, home / path.name)

    def download(self, version: Version, to: Path) -> Path:
        return Path(shutil.copytree(self._home(version) / "adapter", to, dirs_exist_ok=True))

    def url(self, version: Version) -> str:
        return (self._home(version) / "adapter").as_uri()

    def _home(self, version: Version) -> Path:
        return self._folder / version.agent / version.number
