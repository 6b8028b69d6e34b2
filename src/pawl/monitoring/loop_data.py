"""What the loop's page shows. Every section is optional: the page is read at the gate and again at the end."""

from __future__ import annotations

from typing import Literal

import msgspec

from pawl.evaluation.forgetting import Forgetting
from pawl.evaluation.report import Comparison, GateDecision, Interval, ItemResult
from pawl.monitoring.economics import Economics
from pawl.rollout.control import Approval, Request
from pawl.rollout.state import Rollout

MAX_SAMPLES = 12


class DatasetFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What training learned from. `counts`: step -> rows left after it, in order."""

    fingerprint: str
    counts: dict[str, int]
    examples: int
    sources: int
    warnings: tuple[str, ...] = ()  # what validation found and did not stop for
    red: tuple[str, ...] = ()  # lines of the readiness card that are not as the spec demands


class TrainingFacts(msgspec.Struct, frozen=True, kw_only=True):
    """How training went."""

    steps: int
    seconds: float
    tokens_per_second: float
    losses: tuple[float, ...] = ()  # one a step
    start: str = ""  # what it started from: the champion's version, or base


class OnlinePoint(msgspec.Struct, frozen=True, kw_only=True):
    """One answered session that was scored while the rollout ran."""

    at: float  # epoch seconds
    arm: Literal["champion", "challenger"]
    score: float  # 0..1


class Distance(msgspec.Struct, frozen=True, kw_only=True):
    """How far local still is from a cloud upstream, on the same items; apart from champion and challenger."""

    upstream: str
    stand_in: bool
    score: Interval  # the upstream's own
    local: Interval | None = None  # of the local model that serves, or would serve
    items: int = 0


class Week(msgspec.Struct, frozen=True, kw_only=True):
    """One week's serving model on held-out items."""

    week: str
    score: Interval
    p_versus_before: float | None = None  # one-sided paired, better than the week before
    version: str = ""


class Setback(msgspec.Struct, frozen=True, kw_only=True):
    """A challenger that did not make it."""

    version: str
    at: float
    kind: Literal["refused", "rolled_back"]
    reasons: tuple[str, ...]
    rollback_s: float | None = None  # from its first answer to a client until no client got one
    answered_during: int | None = None  # answers clients got from it in that time


class TimeSplit(msgspec.Struct, frozen=True, kw_only=True):
    """Where the loop's seconds went."""

    model_s: float  # training and answering
    evidence_s: float  # waiting for scored sessions
    orchestration_s: float  # everything else


class Sample(msgspec.Struct, frozen=True, kw_only=True):
    """One item answered by both. A score of None could not be graded."""

    item: str
    prompt: str
    champion: str
    challenger: str
    champion_score: float | None
    challenger_score: float | None


class LoopReport(msgspec.Struct, frozen=True, kw_only=True):
    """One turn of the loop for one agent, as far as it has come."""

    title: str
    agent: str
    generated_at: float  # epoch seconds
    week: str = ""
    verdict: str | None = None  # None: written from what is known
    comparison: Comparison | None = None
    gate: GateDecision | None = None
    dataset: DatasetFacts | None = None
    training: TrainingFacts | None = None
    lineage: dict[str, str] = {}  # e.g. dataset_fingerprint, adapter_hash, report_digest, registry_version
    request: Request | None = None
    approval: Approval | None = None
    rollout: Rollout | None = None
    online: tuple[OnlinePoint, ...] = ()
    harm: tuple[tuple[float, float], ...] = ()  # (epoch seconds, evidence of harm) through the rollout
    economics: Economics | None = None
    distance: Distance | None = None
    weeks: tuple[Week, ...] = ()
    forgetting: Forgetting | None = None
    setbacks: tuple[Setback, ...] = ()
    time_split: TimeSplit | None = None
    samples: tuple[Sample, ...] | None = None  # None: taken from the comparison


def worst_first(comparison: Comparison, limit: int = MAX_SAMPLES) -> tuple[Sample, ...]:
    """The items both sides answered, the challenger's worst losses first; ungraded ones last."""
    before = {i.item: i for i in comparison.champion.items}
    pairs = [(before[i.item], i) for i in comparison.challenger.items if i.item in before]

    def loss(pair: tuple[ItemResult, ItemResult]) -> tuple[bool, float, str]:
        old, new = pair
        if old.score is None or new.score is None:
            return (True, 0.0, new.item)
        return (False, new.score - old.score, new.item)

    return tuple(
        Sample(
            item=new.item,
            prompt=new.prompt or old.prompt,
            champion=old.completion,
            challenger=new.completion,
            champion_score=old.score,
            challenger_score=new.score,
        )
        for old, new in sorted(pairs, key=loss)[:limit]
    )
