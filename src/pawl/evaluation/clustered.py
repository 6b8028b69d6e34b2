"""Statistics of paired comparisons whose items share sources: intervals, bounds, exact tests, Holm's correction.

The kernels are in `resampling`; what the gate demands of them in docs/decisions/0013-what-promotion-must-show.md.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from pawl.evaluation import resampling
from pawl.evaluation.report import Interval, McNemar

if TYPE_CHECKING:
    from pawl.evaluation.resampling import Array

Rows = Sequence[tuple[str, float]]  # (source, value)
ANY = (float("-inf"), float("inf"))
UNSEEN = 2.0  # of differences of scores in 0..1: see `resampling.standard_errors`
SURELY = 0.01  # how often, at most, a model that loses twice the margin may be promoted


class Bounds(NamedTuple):
    """One-sided bounds of a mean difference: below at alpha, above at alpha, below at SURELY."""

    lower: float
    upper: float
    surely: float


def clustered_mean(rows: Rows, alpha: float, within: tuple[float, float] = ANY, unseen: float = 0.0) -> Interval:
    """Mean of (source, value) rows with a two-sided 1 - alpha interval over sources, cut to the values' range `within`.

    On either side the wider of Student's t and the BCa bootstrap. With one source nothing is known but the range.
    """
    if not rows:
        return Interval(float("nan") if within == ANY else 0.0, *within)
    sums, counts = clusters(rows)
    low, high = resampling.bounds(sums, counts, (alpha / 2, 1 - alpha / 2), unseen)[0]
    mean = float(resampling.estimates(sums, counts)[0])
    return Interval(mean, max(float(low), within[0]), min(float(high), within[1]))


def difference(rows: Rows, alpha: float) -> Interval:
    """`clustered_mean` of paired differences of scores in 0..1."""
    return clustered_mean(rows, alpha, (-1.0, 1.0), UNSEEN)


def difference_bounds(rows: Rows, alpha: float) -> Bounds:
    """One-sided bounds of the same, which the gate goes by; (-1, 1, -1) where nothing is known."""
    if not rows:
        return Bounds(-1.0, 1.0, -1.0)
    return bounds_of(*clusters(rows), alpha)[0]


def bounds_of(sums: Array, counts: Array, alpha: float) -> list[Bounds]:
    """`difference_bounds` of many comparisons at once, as `resampling` has them."""
    import numpy as np

    found = np.clip(resampling.bounds(sums, counts, (alpha, 1 - alpha, SURELY), UNSEEN), -1.0, 1.0)
    return [Bounds(*row) for row in found.tolist()]


def ratio_of_means(ours: Rows, baseline: Rows, alpha: float) -> Interval | None:
    """Mean of ours over that of the baseline on the same items, paired, with a two-sided interval over sources.

    None where the baseline's mean is not clearly above 0: a share of nothing means nothing.
    """
    if not ours or clustered_mean(baseline, alpha).lower <= 0:
        return None
    (tops, _), (bottoms, _) = clusters(ours), clusters(baseline)
    low, high = (float(b) for b in resampling.bca_bounds(tops, bottoms, (alpha / 2, 1 - alpha / 2))[0])
    if not (math.isfinite(low) and math.isfinite(high)):
        return None
    return Interval(float(resampling.estimates(tops, bottoms)[0]), low, high)


def sign_flip(rows: Rows) -> tuple[float, float]:
    """One-sided p-values (mean > 0, mean < 0) of paired differences, flipping whole sources; see `flip_p`."""
    if not rows:
        return 1.0, 1.0
    better, worse = resampling.flip_p(clusters(rows)[0])
    return float(better[0]), float(worse[0])


def mcnemar(champion: Sequence[bool], challenger: Sequence[bool]) -> McNemar:
    """The exact test of McNemar ("Note on the sampling error of the difference between correlated proportions or
    percentages", Psychometrika 12, 1947): of the items on which they differ, a coin says who passed."""
    pairs = list(zip(champion, challenger, strict=True))
    gained, lost = pairs.count((False, True)), pairs.count((True, False))
    return McNemar(
        both=pairs.count((True, True)),
        gained=gained,
        lost=lost,
        neither=pairs.count((False, False)),
        p_gained=_heads(gained, gained + lost),
        p_lost=_heads(lost, gained + lost),
    )


def holm(p: Sequence[float]) -> list[float]:
    """Adjusted p-values, in the order given (Holm, "A simple sequentially rejective multiple test procedure",
    Scandinavian Journal of Statistics 6, 1979)."""
    adjusted, least = [0.0] * len(p), 0.0
    for rank, n in enumerate(sorted(range(len(p)), key=p.__getitem__)):
        least = max(least, min(1.0, (len(p) - rank) * p[n]))
        adjusted[n] = least
    return adjusted


def clusters(rows: Rows) -> tuple[Array, Array]:
    """(sums, counts) of the sources in the order of their names, one row each."""
    import numpy as np

    values: dict[str, list[float]] = {}
    for source, value in rows:
        values.setdefault(source, []).append(value)
    named = [values[s] for s in sorted(values)]
    # Exact sums: the order of the items changes not even the last digit.
    sums, counts = [math.fsum(v) for v in named], [float(len(v)) for v in named]
    return np.array([sums], dtype=float), np.array([counts], dtype=float)


def _heads(at_least: int, n: int) -> float:
    """Chance of so many heads or more in n throws."""
    return sum(math.comb(n, x) for x in range(at_least, n + 1)) / (1 << n)
