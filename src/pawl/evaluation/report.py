"""What an offline comparison found; its digest is what a person approves."""

from __future__ import annotations

import hashlib
from typing import Literal

import msgspec

Verdict = Literal["better", "not_worse", "worse", "not_enough_evidence"]
# The last fields of structs that comparisons did not have from the start, where there is nothing: left out of digests,
# so that those of older ones stay. No text can look like it: within a string every quote is escaped.
_ADDED = (
    b',"beyond":0}',
    b',"beyond":null}',
    b',"champion_classes":{},"challenger_classes":{}}',
    b',"token_accuracy":null}',
)


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
    prompt_tokens: int = 0
    completion_tokens: int = 0
    latency_s: float = 0.0
    problem: str = ""


class Interval(msgspec.Struct, frozen=True):
    """A mean with its two-sided confidence bounds."""

    mean: float
    lower: float
    upper: float


class ClassMetrics(msgspec.Struct, frozen=True, kw_only=True):
    """One class of a task that names classes."""

    label: str
    items: int  # whose right class it is
    precision: float  # 0 where it was never said
    recall: float
    f1: float


class TokenAccuracy(msgspec.Struct, frozen=True, kw_only=True):
    """Share of the tokens of right answers that are the model's first choice, given the right ones before them."""

    share: Interval | None = None  # mean over the references; None: not measured
    items: int = 0  # references, the same for both sides of a comparison
    tokens: int = 0  # drawn from those
    problem: str = ""  # why some are missing, or all


class Metrics(msgspec.Struct, frozen=True, kw_only=True):
    """What one model's answers come to; None where the task has no such thing."""

    items: int  # graded
    conforms: float  # share of answers in the promised form
    means: dict[str, Interval] = {}  # of each part of the oracle's score
    accuracy: Interval | None = None  # the rest is of tasks that name classes
    macro_f1: float | None = None
    classes: tuple[ClassMetrics, ...] = ()
    brier: float | None = None  # of the stated confidence that the class is right: 0 is best
    calibration_error: float | None = None  # expected, over ten bins of equal width
    confident: int = 0  # answers that state a confidence
    prompt_tokens: float = 0.0  # mean an answer
    completion_tokens: float = 0.0
    latency_p50_s: float | None = None
    latency_p95_s: float | None = None
    usd_per_thousand: float | None = None  # answers; None where no price is known
    token_accuracy: TokenAccuracy | None = None  # None where no right answer is known, or it was not asked for


class ModelResult(msgspec.Struct, frozen=True, kw_only=True):
    """One side of the comparison."""

    name: str
    score: Interval
    conforms: float  # share of answers in the promised form
    items: tuple[ItemResult, ...]
    metrics: Metrics | None = None


class McNemar(msgspec.Struct, frozen=True, kw_only=True):
    """Items by whether each side passed, and the exact test of the two that differ."""

    both: int
    gained: int  # by the challenger only
    lost: int  # by the champion only
    neither: int
    p_gained: float  # one-sided: as many gains or more, were each difference a coin
    p_lost: float


class Slice(msgspec.Struct, frozen=True, kw_only=True):
    """The paired comparison on part of the items. The part never depends on which of the two models is which."""

    name: str
    by: Literal["scenario", "conforms"]
    items: int
    sources: int
    champion: float  # mean scores
    challenger: float
    difference: Interval
    loss_at_most: float  # one-sided bound, as `Comparison.loss_at_most`
    p_better: float
    p_worse: float
    holm_better: float  # adjusted over the slices that could show anything
    holm_worse: float
    protected: bool = False  # those are a family of their own
    beyond: int = 0  # of its items, those that were asked for it alone


class Pattern(msgspec.Struct, frozen=True, kw_only=True):
    """One way of failing, and where it goes. An item is in the pattern of the answer that failed."""

    name: str
    champion: int  # answers that failed so
    challenger: int
    broken: int  # of the challenger's, those that the champion had right
    mended: int  # of the champion's, those that the challenger has right
    sources: int
    examples: tuple[str, ...]  # ids of items, newly broken ones first
    champion_classes: dict[str, int] = {}  # of the champion's, by the items' scenario class
    challenger_classes: dict[str, int] = {}


class SuiteResult(msgspec.Struct, frozen=True, kw_only=True):
    """Both models on the regression suite, which is apart from the comparison's items."""

    outcomes: McNemar
    lost: tuple[str, ...] = ()  # ids that the champion passes and the challenger does not
    must_pass_failed: tuple[str, ...] = ()
    must_pass_unknown: tuple[str, ...] = ()  # marked, and could not be graded or is not in the suite
    ungraded: int = 0
    left_out: int = 0  # of sources that this challenger was trained on
    champion: tuple[ItemResult, ...] = ()
    challenger: tuple[ItemResult, ...] = ()


class Beyond(msgspec.Struct, frozen=True, kw_only=True):
    """Both models on items of protected slices that were asked beyond the draw. They count in their slice alone: the
    draw is what estimates the whole without bias."""

    champion: tuple[ItemResult, ...]
    challenger: tuple[ItemResult, ...]


class Power(msgspec.Struct, frozen=True, kw_only=True):
    """What a comparison of this size can see."""

    sd: float  # of the items' paired differences
    design_effect: float  # items that tell as much as one independent item, by their sharing sources
    power: float  # that is asked for
    detectable: float  # the smallest loss that would have been called worse with that power
    items_for_margin: int  # that would clear a challenger as good as its champion with that power
    available: int = 0  # held-out items there are, whether picked or not; 0: not known


class JudgeCard(msgspec.Struct, frozen=True, kw_only=True):
    """Who judged where no oracle could, and whether people agree with it."""

    judge: str
    pairs: int  # of answers that people had preferred one of
    agreement: Interval  # share of these that it prefers too; a tie is half
    turned: float  # share of pairs on which it went by the order
    failed: int  # pairs that it could not be asked about
    trusted: bool
    least: float  # what the lower bound must reach
    wanted: int


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
    # What the gate goes by: one-sided bounds of the true loss, at alpha and at one in a hundred.
    loss_at_most: float = 1.0
    loss_surely_at_most: float = 1.0
    outcomes: McNemar | None = None  # where every score is 0 or 1
    slices: tuple[Slice, ...] = ()
    protected_margin: float | None = None  # None: as the margin
    failures: tuple[Pattern, ...] = ()
    suite: SuiteResult | None = None
    ratio: Interval | None = None  # challenger's mean score over the champion's
    power: Power | None = None
    judge: JudgeCard | None = None  # who graded, where the task has no oracle
    beyond: Beyond | None = None

    def digest(self) -> str:
        """sha256 of the canonical encoding."""
        encoded = msgspec.json.encode(self, order="deterministic")
        for nothing in _ADDED:
            encoded = encoded.replace(nothing, b"}")
        return hashlib.sha256(encoded).hexdigest()


class GateDecision(msgspec.Struct, frozen=True, kw_only=True):
    """What the gate says of a comparison."""

    decision: Literal["promote", "hold", "reject"]
    reasons: tuple[str, ...]
    items_needed: int = 0  # for hold: how many items a decision would need, by estimate
    slices: tuple[str, ...] = ()  # for reject: the slices that failed
