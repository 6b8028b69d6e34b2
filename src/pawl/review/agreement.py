"""How well raters agree, and what a sample says of its population (pure).

A unit is what was rated; its ratings are (rater, category) pairs. Ratings that are missing are not there. Agreement is
of the units as sampled, not weighed to the population.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from itertools import combinations
from typing import NamedTuple

Unit = tuple[tuple[str, str], ...]  # (rater, category) of each rating, sorted
Counted = Mapping[Unit, int]  # how often each pattern of ratings occurs
Statistic = Callable[[Counted], float | None]

RESAMPLES = 2000


class Estimate(NamedTuple):
    """A value with the two-sided interval it most likely lies in; without one where it cannot be told."""

    value: float | None
    lower: float | None = None
    upper: float | None = None


class Stratum(NamedTuple):
    """Of `size` members of a stratum, `seen` were looked at and `hits` had the property."""

    size: float
    seen: int
    hits: int


def counted(ratings: Iterable[tuple[str, str, str]]) -> Counter[Unit]:
    """Patterns of (unit, rater, category) rows."""
    units: dict[str, dict[str, str]] = {}
    for unit, rater, category in ratings:
        units.setdefault(unit, {})[rater] = category
    return Counter(tuple(sorted(given.items())) for given in units.values())


def raw(units: Counted) -> float | None:
    """Mean over units of the share of their pairs of raters that agree."""
    shares = 0.0
    n = 0
    for unit, times in units.items():
        pairs = [a == b for (_, a), (_, b) in combinations(unit, 2)]
        if pairs:
            shares += times * sum(pairs) / len(pairs)
            n += times
    return shares / n if n else None


def kappa(units: Counted) -> float | None:
    """Cohen's kappa over the units that both rated (Cohen 1960, Educational and Psychological Measurement 20).

    None where there are not exactly two raters, or where chance alone would let them always agree.
    """
    raters = {rater for unit in units for rater, _ in unit}
    both = {unit: times for unit, times in units.items() if len(unit) == 2}
    n = sum(both.values())
    if len(raters) != 2 or not n:
        return None
    first: Counter[str] = Counter()
    second: Counter[str] = Counter()
    same = 0
    for ((_, a), (_, b)), times in both.items():
        first[a] += times
        second[b] += times
        same += times * (a == b)
    by_chance = sum(first[c] * second[c] for c in first) / n**2
    return None if by_chance == 1 else (same / n - by_chance) / (1 - by_chance)


def alpha(units: Counted) -> float | None:
    """Krippendorff's alpha for nominal data: any number of raters, ratings may be missing.

    Source: Krippendorff 2011, "Computing Krippendorff's Alpha-Reliability", section C. None where no unit has two
    ratings, or where all are in one category: then there is nothing that raters could have confused.
    """
    total: Counter[str] = Counter()
    differing = 0.0
    for unit, times in units.items():
        m = len(unit)
        if m < 2:
            continue
        here = Counter(category for _, category in unit)
        total.update({c: times * k for c, k in here.items()})
        differing += times * (m * m - sum(k * k for k in here.values())) / (m - 1)
    n = sum(total.values())
    expected = n * n - sum(k * k for k in total.values())
    return None if not expected else 1 - (n - 1) * differing / expected


def with_interval(statistic: Statistic, units: Counted, level: float = 0.05, seed: int = 0) -> Estimate:
    """The statistic and its percentile bootstrap interval over units (Efron and Tibshirani 1993, ch. 13).

    Draws in which it is undefined are left out; where they are the most there is no interval.
    """
    value = statistic(units)
    patterns, times = list(units), list(units.values())
    if value is None or sum(times) < 2:
        return Estimate(value)
    rng = random.Random(seed)
    size = sum(times)
    drawn = (statistic(Counter(rng.choices(patterns, times, k=size))) for _ in range(RESAMPLES))
    found = sorted(v for v in drawn if v is not None)
    if len(found) < RESAMPLES / 2:
        return Estimate(value)
    cut = round(level / 2 * (len(found) - 1))
    return Estimate(value, found[cut], found[-1 - cut])


def clopper_pearson(hits: float, n: float, level: float = 0.05) -> tuple[float, float]:
    """Exact interval of a proportion (Clopper and Pearson 1934), by quantiles of the beta distribution.

    Fractions of hits and trials are allowed, for effective sizes. Nothing seen says nothing: (0, 1).
    """
    from scipy.special import betaincinv

    lower = float(betaincinv(hits, n - hits + 1, level / 2)) if hits > 0 else 0.0
    upper = float(betaincinv(hits + 1, n - hits, 1 - level / 2)) if n - hits > 0 else 1.0
    return lower, upper


def weighted(strata: Iterable[Stratum], level: float = 0.05) -> Estimate:
    """Share of the population with the property, from a stratified sample; strata of which none was seen are left out.

    The interval is Clopper and Pearson's at the effective sample size (Korn and Graubard 1998, Survey Methodology 24,
    p. 193): that of the simple random sample with the same variance. A stratum's own share enters the variance drawn
    towards the whole by one observation, so that few that agree do not pass for certainty.
    """
    seen = [s for s in strata if s.seen]
    size, n = sum(s.size for s in seen), sum(s.seen for s in seen)
    if not n:
        return Estimate(None, 0.0, 1.0)
    share = sum(s.size / size * s.hits / s.seen for s in seen)
    middle = (share * n + 1) / (n + 2)
    drawn = [(s.size / size, (s.hits + middle) / (s.seen + 1), s.seen) for s in seen]
    whole = sum(w * p for w, p, _ in drawn)
    variance = sum(w * w * p * (1 - p) / k for w, p, k in drawn)
    effective = min(float(n), whole * (1 - whole) / variance)
    return Estimate(share, *clopper_pearson(min(share, 1.0) * effective, effective, level))
