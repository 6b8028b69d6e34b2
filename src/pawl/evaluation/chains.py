"""What the answers of a chain are worth, part by part (pure)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import msgspec

from pawl.evaluation.clustered import clustered_mean, difference
from pawl.evaluation.report import Interval

_UNSEEN = 1.0  # items: that all of them are right does not say that the next one is (`resampling.standard_errors`)


class ChainAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """One answer of a chain. `score` None: the oracle could not say."""

    item: str
    source: str
    score: float | None
    parts: int = 0  # e.g. test cases in it, as far as the oracle looks at them
    right: int = 0  # of them
    problems: dict[str, int] = {}  # of the others, by name
    ran: dict[str, int] = {}  # of the right ones, by what a running server did; empty where none was asked
    latency_s: float = 0.0
    problem: str = ""  # why there is no answer


class ChainReport(msgspec.Struct, frozen=True, kw_only=True):
    """A chain on one set of items."""

    chain: str
    models: dict[str, str]  # agent -> the arm that answered for it
    items: int
    sources: int
    failed: int  # items without an answer
    parts: int
    score: Interval  # of whole answers, by the oracle; an answer that failed counts 0
    valid: Interval | None  # share of the parts that are right; None without parts
    as_expected: Interval | None  # share of all parts that are right and that a running server confirmed
    problems: dict[str, int]
    ran: dict[str, int]
    latency_p50_s: float
    answers: tuple[ChainAnswer, ...] = ()


def report(chain: str, models: dict[str, str], answers: Sequence[ChainAnswer], alpha: float) -> ChainReport:
    """Everything about a chain's answers to some items, with intervals over sources."""
    graded = [a for a in answers if a.score is not None]
    tried = any(a.ran for a in graded)
    waited = sorted(a.latency_s for a in answers)
    return ChainReport(
        chain=chain,
        models=models,
        items=len(graded),
        sources=len({a.source for a in graded}),
        failed=sum(bool(a.problem) for a in graded),
        parts=sum(a.parts for a in graded),
        score=clustered_mean([(a.source, a.score or 0.0) for a in graded], alpha, (0.0, 1.0), _UNSEEN),
        valid=_share(graded, [a.right for a in graded], alpha),
        as_expected=_share(graded, [a.ran.get("as_expected", 0) for a in graded], alpha) if tried else None,
        problems=dict(sum((Counter(a.problems) for a in graded), Counter[str]()).most_common()),
        ran=dict(sum((Counter(a.ran) for a in graded), Counter[str]()).most_common()),
        latency_p50_s=waited[len(waited) // 2] if waited else 0.0,
        answers=tuple(answers),
    )


def change(earlier: ChainReport, later: ChainReport, alpha: float) -> Interval | None:
    """Mean paired difference of scores on the items that both answered, with its interval; None without any."""
    before = {a.item: a.score for a in earlier.answers if a.score is not None}
    rows = [(a.source, a.score - before[a.item]) for a in later.answers if a.score is not None and a.item in before]
    return difference(rows, alpha) if rows else None


def _share(answers: Sequence[ChainAnswer], right: Sequence[int], alpha: float) -> Interval | None:
    """Share of parts over sources: each part is a row, so that long answers count by their parts."""
    rows = [(a.source, float(n < ok)) for a, ok in zip(answers, right, strict=True) for n in range(a.parts)]
    return clustered_mean(rows, alpha, (0.0, 1.0), _UNSEEN) if rows else None
