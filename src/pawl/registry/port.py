"""The model registry's port: immutable adapter versions with tags, and aliases that move."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import msgspec


class Version(msgspec.Struct, frozen=True, kw_only=True):
    """One registered adapter version."""

    agent: str
    number: str  # the registry's number, "1", "2", ...
    sha256: str  # `adapter_sha256` of its files
    tags: dict[str, str] = {}
    run_id: str = ""  # the training run it came from, "" where none was logged
    model_id: str = ""  # where the registry keeps its files

    @property
    def adapter(self) -> str:
        """The name it is served under; never reused for other weights."""
        return adapter_name(self.agent, self.number, self.sha256)


def adapter_name(agent: str, number: str, sha256: str) -> str:
    """agent + registry version + content hash, e.g. `functional-negative-v7-3fa9c1d2`."""
    return f"{agent}-v{number}-{sha256[:8]}"


class Registry(Protocol):
    """What the loop asks of a registry. An unknown version is a RegistryEntryMissing... see `errors`."""

    def register(self, agent: str, adapter_dir: Path, lineage: Mapping[str, str], files: Mapping[str, Path]) -> Version:
        """A new version of the adapter's files, tagged with the lineage, with `files` (name -> path) attached.

        Registering a hash again returns the version it has, with the tags it was given first.
        """
        ...
