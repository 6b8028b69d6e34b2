"""The registry's port."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

import msgspec


class Version(msgspec.Struct, frozen=True, kw_only=True):
    """One adapter version. `adapter` is its immutable name on the serving cluster."""

    agent: str
    number: str
    adapter: str
    sha256: str
    tags: dict[str, str]


def adapter_name(agent: str, number: str, sha256: str) -> str:
    """Agent, registry version and content hash: never reused for other weights."""
    return f"{agent}-v{number}-{sha256[:8]}"


class Registry(Protocol):
    """Adapter versions of agents. KeyError for a version that does not exist; ServerNotUp where it is away."""

    def register(
        self, agent: str, adapter: Path, lineage: Mapping[str, str], files: Mapping[str, Path]
    ) -> Version:
        """A new version of a plain adapter folder; the same adapter hash again gives the version it has already."""
        ...

    def version(self, agent: str, number: str) -> Version: ...
    def versions(self, agent: str) -> list[Version]:
        """Newest first; none for an unknown agent."""
        ...

    def by_alias(self, agent: str, alias: str) -> Version | None: ...
    def move_alias(self, agent: str, alias: str, number: str) -> None: ...
    def drop_alias(self, agent: str, alias: str) -> None:
        """Nothing happens where there is none."""
        ...

    def tag(self, agent: str, number: str, key: str, value: str) -> None: ...
    def attach(self, agent: str, number: str, path: Path) -> None:
        """Store a file, e.g. the report, with the version."""
        ...

    def download(self, version: Version, to: Path) -> Path:
        """The plain adapter folder, somewhere under `to`."""
        ...

    def url(self, version: Version) -> str:
        """Where a person looks at it."""
        ...
