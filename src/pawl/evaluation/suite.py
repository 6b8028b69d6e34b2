"""Both models on the regression suite: what must stay mended, and what may never fail (pure)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from pawl.evaluation.clustered import mcnemar
from pawl.evaluation.report import ItemResult, SuiteResult


def suite_of(
    champion: Sequence[ItemResult],
    challenger: Sequence[ItemResult],
    *,
    must_pass: Iterable[str],
    pass_score: float,
    left_out: int = 0,
) -> SuiteResult:
    """The suite's result on the items that both were asked; an item passes from `pass_score` on.

    Losses are tested item by item (`mcnemar`), not source by source: the suite is these very items and stands for no
    others, so that what they share makes nothing more likely to be a coin's work.
    `must_pass`: ids that may never fail, whether or not they were asked.
    """
    before, after = ({i.item: i for i in side} for side in (champion, challenger))
    both = sorted(before.keys() & after.keys())
    graded = [n for n in both if before[n].score is not None and after[n].score is not None]
    passed = [((before[n].score or 0.0) >= pass_score, (after[n].score or 0.0) >= pass_score) for n in graded]
    marked = sorted(set(must_pass))
    known = {n: i.score >= pass_score for n, i in after.items() if i.score is not None}
    return SuiteResult(
        outcomes=mcnemar([a for a, _ in passed], [b for _, b in passed]),
        lost=tuple(n for n, (was, now) in zip(graded, passed, strict=True) if was and not now),
        must_pass_failed=tuple(n for n in marked if known.get(n) is False),
        must_pass_unknown=tuple(n for n in marked if n not in known),
        ungraded=len(both) - len(graded),
        left_out=left_out,
        champion=tuple(before[n] for n in both),
        challenger=tuple(after[n] for n in both),
    )
