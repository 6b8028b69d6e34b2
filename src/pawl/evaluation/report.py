"""What an offline comparison found; its digest is what a person approves."""

from __future__ import annotations

import hashlib
from typing import Literal

import msgspec

Verdict = Literal["better", "not_worse", "worse", "not_enough_evidence"]


class ItemResult(msgspec.Struct, frozen=True, kw_only=True):
    """One item answered by one model. `score` None means the evaluator failed: invalid, never zero."""

    item: str
    source: str
    score: float | None
    conforms: bool = False  # has the form that the agent promises its clients
    scenario: str = ""  # the item's own class
    metrics: dict[str, float] = {}
    label: str = ""  # of tasks that name a class: the right one
    said: str = ""
    confidence: float | None = None
    completion: str = ""
    prompt: str = ""
    completion_tokens: int = 0
    latency_s: float = 0.0
    problem: str = ""


class Interval(msgspec.Struct, frozen=True):
    """A mean with its two-sided confidence bounds."""

    mean: float
    lower: float
    upper: float


class ModelResult(msgspec.Struct, frozen=True, kw_only=True):
    """One side of the comparison."""

    name: str
    score: Interval
    conforms: float  # share of answers in the promised form
    items: tuple[ItemResult, ...]


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """Champion and challenger on the same items of sources that training never saw."""

    v: int = 2
    agent: str
    champion: ModelResult
    challenger: ModelResult
    difference: Interval  # paired, challenger - champion, clustered by source
    p_better: float  # one-sided paired sign-flip test by source
    p_worse: float
    verdict: Verdict
    margin: float
    alpha: float
    pairs: int
    invalid: int  # items that either side could not be graded on
    sources: int
    items_digest: str
    dataset: str
    contaminated: tuple[str, ...] = ()  # sources found on both sides; any is an error

    def digest(self) -> str:
        """sha256 of the canonical encoding."""
        return hashlib.sha256(msgspec.json.encode(self, order="deterministic")).hexdigest()


class GateDecision(msgspec.Struct, frozen=True, kw_only=True):
    """What the gate says of a comparison."""

    decision: Literal["promote", "hold", "reject"]
    reasons: tuple[str, ...]
    items_needed: int = 0  # for hold: how many items a decision would need, by estimate
