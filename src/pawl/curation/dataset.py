"""A dataset version: immutable, fingerprinted, split by source."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import msgspec


class Example(msgspec.Struct, frozen=True, kw_only=True):
    """One training item."""

    id: str
    messages: list[dict[str, Any]]  # the prompt, OpenAI chat form
    completion: str
    quality: float  # 0..1
    source: str
    interactions: tuple[str, ...]
    replayed: bool = False


class DatasetVersion(msgspec.Struct, frozen=True, kw_only=True):
    """Examples in training order, with what each step dropped."""

    v: int = 1
    agent: str
    examples: tuple[Example, ...]
    counts: dict[str, int]  # step -> rows left after it, in order
    sources: tuple[str, ...]

    @property
    def fingerprint(self) -> str:
        """sha256 over the examples' content, in order."""
        digest = hashlib.sha256(self.agent.encode())
        for e in self.examples:
            digest.update(msgspec.json.encode(e, order="deterministic"))
        return digest.hexdigest()


def save(dataset: DatasetVersion, folder: Path) -> Path:
    """Write `<folder>/<agent>-<fingerprint[:12]>.json` once; an existing one is kept."""
    path = folder / f"{dataset.agent}-{dataset.fingerprint[:12]}.json"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".part")
        part.write_bytes(msgspec.json.encode(dataset))
        part.replace(path)
    return path


def load(path: Path) -> DatasetVersion:
    """Read a dataset version."""
    return msgspec.json.decode(path.read_bytes(), type=DatasetVersion)
