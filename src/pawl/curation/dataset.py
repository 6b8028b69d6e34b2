"""A dataset version: immutable, fingerprinted, split by source."""

from __future__ import annotations

import hashlib
from collections import Counter
from pathlib import Path
from typing import Any, Literal

import msgspec

from pawl.curation.files import write_whole
from pawl.curation.focus import Focus
from pawl.curation.readiness import Card
from pawl.errors import LakeError

Split = Literal["train", "validation", "test"]
_USUAL = b',"privacy":"open","consent":""}'


class Example(msgspec.Struct, frozen=True, kw_only=True):
    """One training item."""

    id: str
    messages: list[dict[str, Any]]  # the prompt, OpenAI chat form
    completion: str
    quality: float  # 0..1
    source: str
    interactions: tuple[str, ...]
    replayed: bool = False
    split: Split = "train"
    kind: str = (
        "answer"  # answer; correction (a person's); variant (of another, verified); bug (a report with its cause)
    )
    scenario: str = ""  # the task's class of it
    weight: float = 1.0  # by age: halves with each half-life
    at: float = 0.0  # epoch seconds of the interaction
    privacy: str = "open"  # the narrowest of its interactions
    consent: str = ""  # granted where it was to all of them


class Pair(msgspec.Struct, frozen=True, kw_only=True):
    """Two answers to one prompt, one better by a known amount."""

    id: str
    messages: list[dict[str, Any]]
    chosen: str
    rejected: str
    gap: float  # quality of the chosen - quality of the rejected, 0..1
    origin: str  # correction, shadow (both answered one request), answers (the same prompt, asked twice)
    source: str
    split: Split
    interactions: tuple[str, ...]
    privacy: str = "open"  # as an example's
    consent: str = ""


class Step(msgspec.Struct, frozen=True):
    """What one step of the preparation left, and why it dropped the rest."""

    name: str
    left: int
    dropped: int
    why: str


class DatasetVersion(msgspec.Struct, frozen=True, kw_only=True):
    """Examples in training order, with what each step dropped."""

    v: int = 3  # before 3 examples do not tell their privacy
    agent: str
    examples: tuple[Example, ...]
    sources: tuple[str, ...]  # of the training split
    steps: tuple[Step, ...] = ()
    pairs: tuple[Pair, ...] = ()
    since: float | None = None  # first interaction learnt from, epoch seconds
    until: float | None = None  # and the last
    licence: str = ""
    scrubbed: dict[str, int] = {}  # kind of personal data or secret -> occurrences replaced
    spec: dict[str, Any] = {}  # the agent's data spec
    card: Card | None = None
    focus: tuple[Focus, ...] = ()  # the classes that had more room, because what served then failed in them

    @property
    def counts(self) -> dict[str, int]:
        """Step -> rows left after it, in order."""
        return {s.name: s.left for s in self.steps}

    @property
    def train(self) -> tuple[Example, ...]:
        """What a model learns from."""
        return tuple(e for e in self.examples if e.split == "train")

    @property
    def by_split(self) -> dict[str, int]:
        """Examples of each split."""
        found = Counter(e.split for e in self.examples)
        return {name: found[name] for name in ("train", "validation", "test")}

    @property
    def fingerprint(self) -> str:
        """sha256 over the examples' and pairs' content, in order."""
        digest = hashlib.sha256(self.agent.encode())
        for item in (*self.examples, *self.pairs):
            # Without the usual terms, so that older versions keep their fingerprints.
            encoded = msgspec.json.encode(item, order="deterministic")
            digest.update(encoded[: -len(_USUAL)] + b"}" if encoded.endswith(_USUAL) else encoded)
        return digest.hexdigest()


def name_of(dataset: DatasetVersion) -> str:
    """How people call it."""
    return f"{dataset.agent}-{dataset.fingerprint[:12]}"


def save(dataset: DatasetVersion, folder: Path) -> Path:
    """Write `<folder>/<name>.json` once; an existing one is kept. LakeError where the disk refuses."""
    path = folder / f"{name_of(dataset)}.json"
    if not path.exists():
        try:
            write_whole(path, msgspec.json.encode(dataset))
        except OSError as e:
            raise LakeError(f"the dataset cannot be written to {path}: {e.strerror or e}; free disk space") from e
    return path


def load(path: Path) -> DatasetVersion:
    """Read a dataset version. LakeError where it cannot be read."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=DatasetVersion)
    except (OSError, msgspec.MsgspecError) as e:
        raise LakeError(f"the dataset {path} cannot be read: {e}; prepare it anew") from e


def find(folder: Path, name: str) -> Path:
    """A dataset's file by its name, or by enough of it to tell it from the others. LakeError where that is not one."""
    found = [p for p in sorted(folder.glob("*.json")) if is_dataset(p) and name in p.stem]
    exact = [p for p in found if p.stem == name]
    if len(exact or found) != 1:
        listed = ", ".join(p.stem for p in found) or "none"
        raise LakeError(f"no single dataset is called {name!r}; matching: {listed}. `pawl dataset list` names them")
    return (exact or found)[0]


def is_dataset(path: Path) -> bool:
    """Whether a file of the folder is a dataset, and not what was written about one."""
    return path.suffix == ".json" and path.stem.count(".") == 0
