"""How many items a comparison needs, and what one of a given size could have seen.

Normal theory with Student's degrees of freedom for the sources, which the gate's bounds follow closely; the gate's own
chances are simulated in benchmarks/gate_calibration.py.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

from pawl.evaluation import resampling
from pawl.evaluation.clustered import SURELY, UNSEEN, Rows, clusters
from pawl.evaluation.report import Power

MOST = 1_000_000  # items; what needs more is out of reach


class Spread(NamedTuple):
    """How paired differences vary."""

    sd: float  # of single items' differences
    per_source: float  # items a source, on average
    icc: float  # share of the variance that items of one source have in common
    unequal: float = 0.0  # coefficient of variation of the sources' sizes

    @property
    def design_effect(self) -> float:
        """Items that tell as much as one independent item (Kish, Survey Sampling, 1965, section 5.4; for sources of
        unequal size Eldridge, Ashby and Kerry, International Journal of Epidemiology 35, 2006)."""
        return 1.0 + max(0.0, (1.0 + self.unequal**2) * self.per_source - 1.0) * self.icc


def spread_of(rows: Rows) -> Spread | None:
    """As measured, the ICC by analysis of variance (Donner and Koval, Biometrics 36, 1980); None below two sources."""
    import numpy as np

    if not rows:
        return None
    sums, counts = (a[0] for a in clusters(rows))
    k, n = len(sums), float(counts.sum())
    if k < 2 or n < 3:
        return None
    values = np.array([v for _, v in rows])
    total = float(((values - values.mean()) ** 2).sum())
    between = float((counts * (sums / counts - sums.sum() / n) ** 2).sum())
    icc = 0.0
    if n > k and total > 0:
        within = (total - between) / (n - k)
        size = (n - float((counts**2).sum()) / n) / (k - 1)
        ms = between / (k - 1)
        icc = min(1.0, max(0.0, (ms - within) / (ms + (size - 1) * within)))
    return Spread(math.sqrt(total / (n - 1)), n / k, icc, float(counts.std() / counts.mean()))


def chance_to_promote(items: int, spread: Spread, margin: float, alpha: float, difference: float = 0.0) -> float:
    """That both bounds of the gate clear a challenger whose true difference is `difference`, and no loss is shown."""
    from scipy.special import stdtr

    error, degrees = _error(items, spread)
    if degrees < 1:
        return 0.0
    t, far = _t(alpha, degrees), _t(SURELY, degrees)
    return float(stdtr(degrees, difference / error + min(margin / error - t, 2 * margin / error - far, t)))


def items_for(spread: Spread, margin: float, alpha: float, power: float, difference: float = 0.0) -> int | None:
    """The fewest items, of proportionally more sources, that give that chance; None where not even MOST do."""
    return _fewest(lambda items: chance_to_promote(items, spread, margin, alpha, difference) >= power, MOST)


def items_of(sizes: Sequence[int], sd: float, icc: float, margin: float, alpha: float, power: float) -> int | None:
    """The fewest items, picked from sources of these sizes, that give a challenger as good as its champion that
    chance; None where not even all of them do."""
    total = sum(sizes)
    return _fewest(
        lambda items: chance_to_promote(items, picked(sizes, items / total, sd, icc), margin, alpha) >= power, total
    )


def _fewest(enough: Callable[[int], bool], most: int) -> int | None:
    if most < 1 or not enough(most):
        return None
    low, high = 0, most
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


def detectable(items: int, spread: Spread, alpha: float, power: float) -> float:
    """The smallest true loss, on the scale of scores, that is called worse with that chance; 1 where none is."""
    error, degrees = _error(items, spread)
    return min(1.0, (_t(alpha, degrees) + _t(1 - power, degrees)) * error) if degrees >= 1 else 1.0


def power_of(rows: Rows, *, margin: float, alpha: float, power: float, available: int = 0) -> Power | None:
    """What a comparison that was made could see; None where it has too few sources to tell."""
    spread = spread_of(rows)
    if spread is None:
        return None
    sums, counts = clusters(rows)
    error = float(resampling.standard_errors(sums, counts, UNSEEN)[0])
    alone = spread.sd**2 / len(rows)
    degrees = sums.shape[1] - 1
    needed = items_for(spread, margin, alpha, power)
    return Power(
        sd=spread.sd,
        design_effect=max(1.0, float(error**2 / alone)) if alone > 0 else 1.0,
        power=power,
        detectable=min(1.0, (_t(alpha, degrees) + _t(1 - power, degrees)) * error),
        items_for_margin=needed or MOST,
        available=available,
    )


def picked(sizes: Sequence[int], share: float, sd: float, icc: float) -> Spread:
    """Of a known or assumed standard deviation, where that share of each source's items is asked."""
    asked = [max(1.0, size * share) for size in sizes]
    if not asked:
        return Spread(sd, 1.0, icc)
    mean = sum(asked) / len(asked)
    return Spread(sd, mean, icc, math.sqrt(sum((a - mean) ** 2 for a in asked) / len(asked)) / mean)


def _error(items: int, spread: Spread) -> tuple[float, float]:
    """The standard error of the mean difference, and its degrees of freedom."""
    unseen = UNSEEN * (1.0 + resampling.CLUMPED * (spread.per_source - 1.0)) ** 2
    squared = spread.sd**2 * spread.design_effect / items + unseen / items**2
    return math.sqrt(squared), max(0.0, items / max(1.0, spread.per_source) - 1)


def _t(tail: float, degrees: float) -> float:
    """The value that Student's t exceeds with that chance."""
    from scipy.special import stdtrit

    return float(-stdtrit(degrees, tail))
