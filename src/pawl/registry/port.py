"""The model registry's port: immutable adapter versions with tags, and aliases that move."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import msgspec

REWRITTEN = (".html", ".json")  # endings of pages and tables


class Version(msgspec.Struct, frozen=True, kw_only=True):
    """One registered adapter version."""

    agent: str
    number: str  # the registry's number: "1", "2", ...
    sha256: str  # `adapter_sha256` of its files
    tags: dict[str, str] = {}
    run_id: str = ""  # the experiment run that its files and reports hang on

    @property
    def adapter(self) -> str:
        """The name it is served under: agent + version + content hash; never reused for other weights."""
        return f"{self.agent}-v{self.number}-{self.sha256[:8]}"


class Packing(msgspec.Struct, frozen=True, kw_only=True):
    """What a version needs beside its own files to be loaded by others."""

    base_dir: Path  # the base model on this machine: its tokenizer goes along, its weights do not
    base_name: str  # what others find it under
    max_tokens: int  # of an answer
    whole: bool = False  # full weights, no adapter


class LearntFrom(msgspec.Struct, frozen=True, kw_only=True):
    """The dataset version of a training run, as the registry names it."""

    name: str
    fingerprint: str
    figures: dict[str, int]  # examples by split, pairs, sources


class Registry(Protocol):
    """What the loop asks of a registry.

    An agent, version or alias target that does not exist is NotThere, except where None or an empty list says so.
    ServerNotUp where the registry does not answer.
    """

    def register(self, agent: str, adapter_dir: Path, lineage: Mapping[str, str], files: Mapping[str, Path]) -> Version:
        """Store the adapter's folder as a new version, tagged with its lineage, with `files` (name -> path) attached.

        Idempotent by content: an adapter hash that is registered already returns its version as it is. A `run_id`
        in the lineage (from `log_training`) hangs the version on that run.
        """
        ...

    def describe(self, version: Version, card: str, packing: Packing | None) -> None:
        """Show a card (Markdown) with the version, keep it as README.md in its folder, and make the folder one that
        the registry's own tools load. May be repeated; the files that make the adapter stay as they are.

        `packing` None: the base model is not at hand, and only the card is written.
        """
        ...

    def log_training(
        self,
        agent: str,
        params: Mapping[str, str],
        metrics: Mapping[str, float],
        curves: Mapping[str, Sequence[tuple[int, float]]],
        dataset: LearntFrom | None = None,
        run_id: str = "",
    ) -> str:
        """Record a training run in the agent's experiment; `curves` are (step, value). Returns its run id.

        `run_id`: the run that was written while training ran. It is completed, with the steps it lacks; where it is
        gone, another is made.
        """
        ...

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
        """Record a finished run that trained nothing in the agent's experiment, with files (name -> path) and tables
        hung on it. Returns a link to it.

        `key`: what it is a record of. One of the same key stays as it is, and one that was cut off is completed.
        """
        ...

    def log_table(self, run_id: str, name: str, columns: Mapping[str, Sequence[Any]]) -> None:
        """Hang a table on a run, for the registry's own view of evaluations; one of that name stays as it is."""
        ...

    def version(self, agent: str, number: str) -> Version: ...
    def versions(self, agent: str) -> list[Version]:
        """Newest first; empty for an agent that was never registered."""
        ...

    def find_by_sha256(self, agent: str, sha256: str) -> Version | None: ...
    def by_alias(self, agent: str, alias: str) -> Version | None: ...
    def move_alias(self, agent: str, alias: str, number: str) -> None: ...
    def drop_alias(self, agent: str, alias: str) -> None:
        """Dropping an alias that is not there changes nothing."""
        ...

    def tag(self, agent: str, number: str, key: str, value: str) -> None: ...
    def attach(self, agent: str, number: str, path: Path) -> str:
        """Hang a file on the version, under its own name; one of that name is replaced. Returns a link to it."""
        ...

    def link_to(self, version: Version, name: str) -> str:
        """Where a file that hangs on the version is looked at."""
        ...

    def rewrite(self, agent: str, change: Callable[[str, bytes], bytes | None]) -> list[str]:
        """Replace pages and tables that hang on the agent's runs by what `change(name, content)` makes of them.

        None leaves one as it is. Returns links to those that were replaced; none for an agent that has no runs.
        """
        ...

    def download(self, version: Version, to: Path) -> Path:
        """Write the adapter's plain folder into `to`, made where missing; returns the folder that holds the files.

        The caller compares `adapter_sha256` with the version's.
        """
        ...

    def url(self, version: Version) -> str:
        """Where a person looks at the version."""
        ...
