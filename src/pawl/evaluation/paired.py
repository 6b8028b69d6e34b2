"""Paired comparison of two models on the same items: everything the gate and a person decide by."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from pawl.evaluation.clustered import Bounds, Rows, difference, difference_bounds, mcnemar, ratio_of_means
from pawl.evaluation.clustered import clustered_mean as clustered_mean
from pawl.evaluation.clustered import sign_flip as sign_flip
from pawl.evaluation.metrics import Prices, measure
from pawl.evaluation.power import power_of
from pawl.evaluation.report import Beyond, Comparison, ItemResult, ModelResult, Pattern, SuiteResult, Verdict
from pawl.evaluation.slices import slices_of


def verdict_of(bounds: Bounds, p_better: float, p_worse: float, margin: float, alpha: float) -> Verdict:
    """Three verdicts, never two (pure). What may well be a loss is never `not_worse`, however small it is."""
    if p_better < alpha and bounds.lower > 0:
        return "better"
    if p_worse < alpha:
        return "worse" if bounds.upper < 0 else "not_enough_evidence"
    return "not_worse" if bounds.lower > -margin else "not_enough_evidence"


def compare(
    agent: str,
    champion: tuple[str, Sequence[ItemResult]],
    challenger: tuple[str, Sequence[ItemResult]],
    *,
    margin: float,
    alpha: float,
    dataset: str,
    training_sources: set[str],
    power: float = 0.8,
    protected: Sequence[str] = (),
    protected_margin: float | None = None,
    failures: Sequence[Pattern] = (),
    suite: SuiteResult | None = None,
    available: int = 0,
    prices: tuple[Prices | None, Prices | None] = (None, None),
    beyond: tuple[Sequence[ItemResult], Sequence[ItemResult]] = ((), ()),
) -> Comparison:
    """Compare two models' results on the same items.

    Items that either side could not be graded on are invalid: counted, never zero. Sources found in the training data
    are contamination and listed. `available`: held-out items there are; `prices`: of the champion's
    and of the challenger's tokens; `beyond`: their results on items of protected slices beyond the draw, which count
    in those slices alone.
    """
    before, after = ({i.item: i for i in side[1]} for side in (champion, challenger))
    both = sorted(before.keys() & after.keys())
    pairs = [(before[i], after[i]) for i in both]
    graded = [(a, b) for a, b in pairs if a.score is not None and b.score is not None]
    olds = [(b.source, float(a.score or 0.0)) for a, b in graded]
    news = [(b.source, float(b.score or 0.0)) for _, b in graded]
    rows = [(source, new - old) for (source, old), (_, new) in zip(olds, news, strict=True)]
    p_better, p_worse = sign_flip(rows)
    bounds = difference_bounds(rows, alpha)
    more = {i.item: i for i in beyond[0]}
    extra = [(more[i.item], i) for i in sorted(beyond[1], key=lambda i: i.item) if i.item in more]
    sources = {b.source for _, b in pairs}
    asked = sources | {b.source for _, b in extra}
    binary = bool(graded) and all(v in (0.0, 1.0) for _, v in (*olds, *news))

    def side(name: str, items: Sequence[ItemResult], scores: Rows, price: Prices | None) -> ModelResult:
        return ModelResult(
            name=name,
            score=clustered_mean(scores, alpha, (0.0, 1.0)),
            conforms=sum(i.conforms for i in items) / max(1, len(items)),
            items=tuple(items),
            metrics=measure(items, alpha, price),
        )

    return Comparison(
        agent=agent,
        champion=side(champion[0], [a for a, _ in pairs], olds, prices[0]),
        challenger=side(challenger[0], [b for _, b in pairs], news, prices[1]),
        difference=difference(rows, alpha),
        p_better=p_better,
        p_worse=p_worse,
        verdict=verdict_of(bounds, p_better, p_worse, margin, alpha),
        margin=margin,
        alpha=alpha,
        pairs=len(graded),
        invalid=len(pairs) - len(graded) + len(before.keys() ^ after.keys()),
        sources=len(sources),
        items_digest=hashlib.sha256("\n".join((*both, *(b.item for _, b in extra))).encode()).hexdigest(),
        dataset=dataset,
        contaminated=tuple(sorted(asked & training_sources)),
        loss_at_most=0.0 - bounds.lower,
        loss_surely_at_most=0.0 - bounds.surely,
        outcomes=mcnemar([v > 0 for _, v in olds], [v > 0 for _, v in news]) if binary else None,
        slices=slices_of(
            graded, alpha, protected, [(a, b) for a, b in extra if a.score is not None and b.score is not None]
        ),
        protected_margin=protected_margin,
        failures=tuple(failures),
        suite=suite,
        ratio=ratio_of_means(news, olds, alpha),
        power=power_of(rows, margin=margin, alpha=alpha, power=power, available=available),
        beyond=Beyond(champion=tuple(a for a, _ in extra), challenger=tuple(b for _, b in extra)) if extra else None,
    )
