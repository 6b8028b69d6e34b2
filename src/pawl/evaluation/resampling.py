"""Bounds and p-values that take whole sources as the unit, for many comparisons at once (numpy).

Items of one source (a service, a project) resemble each other, so a source is what is drawn, left out or flipped. Rows
of the arrays are comparisons, columns their sources: a comparison of two models is one row, a simulation thousands.
Both go through the same code, so that what is calibrated is what decides. `sums[r, s]` is the sum of source s's
values, `counts[r, s]` their number; the estimate of a row is sums.sum() / counts.sum(). `counts` may be the sums of
another quantity over the same sources: then the estimate is a ratio of the two means, and its bounds are paired.

The draws are made from fixed seeds: the same evidence always gives the same bounds.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Array = npt.NDArray[np.float64]

RESAMPLES = 4000
EXACT = 12  # sources with a difference up to which all flips are gone through
FLIPS = 9_999  # beyond that, as many random ones
CLUMPED = 0.1  # assumed intra-source correlation of differences that were not seen
_AT_ONCE = 512  # rows, for memory
_SLACK = 1e-9


def estimates(sums: Array, counts: Array) -> Array:
    """sums over counts of each row; 0 where there is nothing."""
    import numpy as np

    total = counts.sum(axis=1)
    found: Array = np.divide(sums.sum(axis=1), total, out=np.zeros(len(sums)), where=total != 0)
    return found


def standard_errors(sums: Array, counts: Array, unseen: float = 0.0) -> Array:
    """By the jackknife over sources (Efron and Tibshirani 1993, ch. 11), about the estimate itself.

    `unseen`: added to the sum of squares, in units of one item's square. With 2 a comparison is as uncertain as if one
    item more had been lost and one more gained: where few items differed, what was seen says little of how often they
    would. The idea is that of Agresti and Min, "Simple improved confidence intervals for comparing matched proportions"
    (Statistics in Medicine 24, 2005), who add half as much. Where sources have many items, what was not seen comes in
    clumps as well (`clump`).
    """
    import numpy as np

    k = sums.shape[1]
    if k < 2:
        return np.full(len(sums), np.inf)
    without = _left_out(sums, counts)
    off = without - estimates(sums, counts)[:, None]
    number = counts.sum(axis=1)
    more = unseen * clump(number / k) ** 2 if unseen else 0.0
    errors: Array = np.sqrt((k - 1) / k * (off**2).sum(axis=1) + more / number**2)
    return errors


def clump(per_source: Array) -> Array:
    """How many items go wrong together when one does, were a tenth of their variance their source's."""
    return 1.0 + CLUMPED * (per_source - 1.0)


def t_bounds(sums: Array, counts: Array, levels: Sequence[float], unseen: float = 0.0) -> Array:
    """Bounds of the mean at `levels` (rows, levels), by Student's t with sources - 1 degrees, wider where skewed.

    The jackknife's error with those degrees is the cautious choice for clusters of unequal size (Bell and McCaffrey,
    "Bias reduction in standard errors for linear regression with multi-stage samples", Survey Methodology 28, 2002). On
    the side of the longer tail the quantile is moved out by the first term of its Edgeworth expansion (Hall, "On the
    removal of skewness by transformation", JRSS B 54, 1992, eq. 1.1): rare losses are exactly what makes a mean look
    better, and its error smaller, than they are. On the other side nothing is gained by it.
    """
    import numpy as np
    from scipy.special import stdtrit

    k = sums.shape[1]
    mean, error = estimates(sums, counts), standard_errors(sums, counts, unseen)
    if k < 2:
        return np.stack([np.full(len(sums), np.inf if level > 0.5 else -np.inf) for level in levels], axis=1)
    off = mean[:, None] - _left_out(sums, counts)
    squares = (off**2).sum(axis=1)
    cubes = (off**3).sum(axis=1)
    skew = np.divide(np.sqrt(k) * cubes, squares**1.5, out=np.zeros(len(sums)), where=squares > _SLACK**2)
    found = []
    for level in levels:
        t = float(stdtrit(k - 1, level))
        tail = np.maximum(0.0, skew) if t > 0 else np.minimum(0.0, skew)
        found.append(mean + (t + tail * (2 * t * t + 1) / (6 * np.sqrt(k))) * error)
    return np.stack(found, axis=1)


def bca_bounds(sums: Array, counts: Array, levels: Sequence[float]) -> Array:
    """The same by the bootstrap over sources, bias-corrected and accelerated (rows, levels).

    Efron, "Better bootstrap confidence intervals" (JASA 82, 1987), section 3; the acceleration by the jackknife over
    sources (Efron and Tibshirani 1993, eq. 14.15). Resamples that equal the estimate count half below it, so that
    swapping the models mirrors the bounds also where scores are few and discrete.
    """
    import numpy as np
    from scipy.special import ndtr, ndtri

    k = sums.shape[1]
    if k < 2:
        return t_bounds(sums, counts, levels)
    weights = _draws(k)
    found = np.empty((len(sums), len(levels)))
    for start in range(0, len(sums), _AT_ONCE):
        part = slice(start, start + _AT_ONCE)
        with np.errstate(divide="ignore", invalid="ignore"):
            drawn = np.sort((sums[part] @ weights) / (counts[part] @ weights), axis=1)
        mean = estimates(sums[part], counts[part])[:, None]
        below = (drawn < mean - _SLACK).mean(axis=1) + (np.abs(drawn - mean) <= _SLACK).mean(axis=1) / 2
        bias = ndtri(np.clip(below, 0.5 / RESAMPLES, 1 - 0.5 / RESAMPLES))
        without = _left_out(sums[part], counts[part])
        influence = without.mean(axis=1, keepdims=True) - without
        cubes, squares = (influence**3).sum(axis=1), (influence**2).sum(axis=1)
        acceleration = np.divide(cubes, 6 * squares**1.5, out=np.zeros(len(mean)), where=squares > _SLACK**2)
        for n, level in enumerate(levels):
            z = bias + ndtri(level)
            found[part, n] = _quantiles(drawn, ndtr(bias + z / np.maximum(1 - acceleration * z, 1e-3)))
    return found


def bounds(sums: Array, counts: Array, levels: Sequence[float], unseen: float = 0.0) -> Array:
    """The wider of both at each level: the bootstrap is too narrow where sources are few, and where they are many it is
    the one that knows the shape."""
    import numpy as np

    by_t, by_draws = t_bounds(sums, counts, levels, unseen), bca_bounds(sums, counts, levels)
    low = np.asarray(levels) < 0.5
    wider: Array = np.where(low, np.minimum(by_t, by_draws), np.maximum(by_t, by_draws))
    return wider


def flip_p(sums: Array) -> tuple[Array, Array]:
    """One-sided p-values (mean > 0, mean < 0) of paired differences, flipping the sign of whole sources' sums.

    Good, "Permutation, parametric and bootstrap tests of hypotheses" (2005), ch. 3. All flips where at most EXACT
    sources have a difference, else FLIPS random ones with the observed one counted in. Sources without a difference
    change nothing, not even the random flips: their number says nothing of who is better.
    """
    import numpy as np

    better, worse = np.ones(len(sums)), np.ones(len(sums))
    if sums.shape[1] == 0:
        return better, worse
    differing = np.abs(sums) > _SLACK
    packed = np.take_along_axis(np.where(differing, sums, 0.0), np.argsort(~differing, axis=1, kind="stable"), axis=1)
    number = differing.sum(axis=1)
    few, many = np.flatnonzero(number <= EXACT), np.flatnonzero(number > EXACT)
    for rows, signs, extra in ((few, _all_flips(), 0), (many, None, 1)):
        for start in range(0, len(rows), _AT_ONCE):
            part = rows[start : start + _AT_ONCE]
            width = int(number[part].max())
            used = _some_flips(width) if signs is None else signs[:, :width]
            totals = packed[part, :width] @ used.T
            seen = packed[part, :width].sum(axis=1, keepdims=True)
            slack = _SLACK * np.maximum(1.0, np.abs(packed[part]).sum(axis=1, keepdims=True))
            amount = len(used) + extra
            better[part] = ((totals >= seen - slack).sum(axis=1) + extra) / amount
            worse[part] = ((totals <= seen + slack).sum(axis=1) + extra) / amount
    return better, worse


def _left_out(sums: Array, counts: Array) -> Array:
    """The estimate without each source in turn."""
    import numpy as np

    rest = counts.sum(axis=1, keepdims=True) - counts
    left = sums.sum(axis=1, keepdims=True) - sums
    found: Array = np.divide(left, rest, out=np.zeros_like(left), where=np.abs(rest) > _SLACK)
    return found


def _quantiles(ranked: Array, at: Array) -> Array:
    """Of each row, which is sorted, at its own level, between the two nearest values."""
    import numpy as np

    place = at * (ranked.shape[1] - 1)
    low = np.clip(np.floor(place).astype(int), 0, ranked.shape[1] - 1)
    high = np.minimum(low + 1, ranked.shape[1] - 1)
    rows = np.arange(len(ranked))
    found: Array = ranked[rows, low] + (place - low) * (ranked[rows, high] - ranked[rows, low])
    return found


@lru_cache(maxsize=8)
def _draws(k: int) -> Array:
    """How often each of k sources is drawn, in each resample (k, RESAMPLES)."""
    import numpy as np

    drawn: Array = np.random.default_rng(0).multinomial(k, np.full(k, 1 / k), RESAMPLES).T.astype(float)
    return drawn


@lru_cache(maxsize=1)
def _all_flips() -> Array:
    import numpy as np

    flips: Array = 1.0 - 2.0 * ((np.arange(2**EXACT)[:, None] >> np.arange(EXACT)) & 1)
    return flips


@lru_cache(maxsize=8)
def _some_flips(k: int) -> Array:
    """Each source's flips are its own draw, so that one more source leaves those of the others as they are."""
    import numpy as np

    columns = [1.0 - 2.0 * np.random.default_rng([7, n]).integers(0, 2, FLIPS) for n in range(k)]
    return np.stack(columns, axis=1)
