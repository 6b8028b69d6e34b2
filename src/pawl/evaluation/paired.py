"""Paired comparison of two models on the same items, clustered by source.

Items of one source (a service, an API) resemble each other, so the source is the unit of resampling: bootstrap
intervals draw whole sources (Davison and Hinkley 1997, sec. 3.8), and the test flips the sign of whole sources'
summed differences (paired randomisation, Good 2005, ch. 3). Both hold at small samples without normality.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

from pawl.evaluation.report import Comparison, Interval, ItemResult, ModelResult, Verdict

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

RESAMPLES = 4000


def clustered_mean(rows: Sequence[tuple[str, float]], alpha: float, seed: int = 0) -> Interval:
    """Mean of (source, value) rows with a two-sided 1 - alpha percentile bootstrap interval over sources.

    With one source the interval is the widest that the values' range allows to say nothing: (-inf, inf).
    """
    import numpy as np

    sums, counts = _clusters(rows)
    if len(sums) == 0:
        return Interval(float("nan"), float("-inf"), float("inf"))
    mean = float(sums.sum() / counts.sum())
    if len(sums) < 2:
        return Interval(mean, float("-inf"), float("inf"))
    rng = np.random.default_rng(seed)
    drawn = rng.integers(0, len(sums), size=(RESAMPLES, len(sums)))
    means = sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1)
    # Percentile intervals of few clusters are too narrow by about sqrt((n-1)/n): widened around the mean.
    widen = float(np.sqrt(len(sums) / (len(sums) - 1)))
    lower, upper = np.quantile(means, [alpha / 2, 1 - alpha / 2])
    return Interval(mean, mean - (mean - float(lower)) * widen, mean + (float(upper) - mean) * widen)


def sign_flip(rows: Sequence[tuple[str, float]], seed: int = 0) -> tuple[float, float]:
    """One-sided p-values (mean > 0, mean < 0) of paired differences, flipping whole sources.

    Exact up to 12 sources (all 2^k flips), else 9,999 random flips with the observed one counted in.
    """
    import numpy as np

    sums, _ = _clusters(rows)
    k = len(sums)
    if k == 0 or not np.any(sums):
        return 1.0, 1.0
    if k <= 12:
        signs = 1 - 2 * ((np.arange(2**k)[:, None] >> np.arange(k)) & 1)
        totals = signs @ sums
        extra = 0
    else:
        rng = np.random.default_rng(seed)
        totals = (1 - 2 * rng.integers(0, 2, size=(9999, k), dtype=np.int8)) @ sums
        extra = 1
    seen, slack = sums.sum(), 1e-9
    above = (int((totals >= seen - slack).sum()) + extra) / (len(totals) + extra)
    below = (int((totals <= seen + slack).sum()) + extra) / (len(totals) + extra)
    return above, below


def verdict_of(difference: Interval, p_better: float, p_worse: float, margin: float, alpha: float) -> Verdict:
    """Three verdicts, never two; `worse` where harm is shown (pure)."""
    if p_better < alpha and difference.lower > 0:
        return "better"
    if p_worse < alpha and difference.upper < 0:
        return "worse"
    return "not_worse" if difference.lower > -margin else "not_enough_evidence"


def compare(
    agent: str,
    champion: tuple[str, Sequence[ItemResult]],
    challenger: tuple[str, Sequence[ItemResult]],
    *,
    margin: float,
    alpha: float,
    dataset: str,
    training_sources: set[str],
    seed: int = 0,
) -> Comparison:
    """Compare two models' results on the same items.

    Items that either side could not be graded on are invalid: counted, never zero. Sources found in the
    training data are contamination and listed.
    """
    before = {i.item: i for i in champion[1]}
    after = {i.item: i for i in challenger[1]}
    both = sorted(before.keys() & after.keys())
    pairs = [(before[i], after[i]) for i in both]
    graded = [(a, b, a.score, b.score) for a, b in pairs if a.score is not None and b.score is not None]
    differences = [(b.source, sb - sa) for _, b, sa, sb in graded]
    p_better, p_worse = sign_flip(differences, seed)
    difference = clustered_mean(differences, alpha, seed)
    digest = hashlib.sha256("\n".join(both).encode()).hexdigest()
    sources = {b.source for _, b in pairs}
    return Comparison(
        agent=agent,
        champion=_side(champion[0], [(a, sa) for a, _, sa, _ in graded], [a for a, _ in pairs], alpha, seed),
        challenger=_side(challenger[0], [(b, sb) for _, b, _, sb in graded], [b for _, b in pairs], alpha, seed),
        difference=difference,
        p_better=p_better,
        p_worse=p_worse,
        verdict=verdict_of(difference, p_better, p_worse, margin, alpha),
        margin=margin,
        alpha=alpha,
        pairs=len(graded),
        invalid=len(pairs) - len(graded) + len(before.keys() ^ after.keys()),
        sources=len(sources),
        items_digest=digest,
        dataset=dataset,
        contaminated=tuple(sorted(sources & training_sources)),
    )


def _side(
    name: str, graded: list[tuple[ItemResult, float]], items: list[ItemResult], alpha: float, seed: int
) -> ModelResult:
    score = clustered_mean([(i.source, s) for i, s in graded], alpha, seed)
    valid = sum(i.conforms for i in items) / max(1, len(items))
    return ModelResult(name=name, score=score, conforms=valid, items=tuple(items))


def _clusters(rows: Sequence[tuple[str, float]]) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """(sum, count) of each source, in the order of their names."""
    import numpy as np

    found: dict[str, tuple[float, int]] = {}
    for source, value in rows:
        total, n = found.get(source, (0.0, 0))
        found[source] = (total + value, n + 1)
    ordered = [found[s] for s in sorted(found)]
    return np.array([t for t, _ in ordered], dtype=float), np.array([n for _, n in ordered], dtype=float)
