"""Rules that compare the last day with a reference at each look, as drift monitors do by default (written anew)."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from benchmarks.drift_worlds import DAY, MONDAY, REFERENCE_DAYS, Seen
from pawl.monitoring.drift_values import KINDS

_FEW = 5  # distinct values up to which a column counts as categorical


def first_alarm(seen: Sequence[Seen], rule: Any, least: int = 1, level: float = 0.05) -> float | None:
    """Days from the first session to the first daily look at which `least` columns or more drift; None: never.

    The reference is the first week; a look each midnight compares the day that has ended with it.
    """
    last = int((seen[-1].at - MONDAY) // DAY) + 1
    of_days: list[list[Seen]] = [[] for _ in range(last)]
    for s in seen:
        of_days[int((s.at - MONDAY) // DAY)].append(s)
    reference = {k: [s.values[k] for day in of_days[:REFERENCE_DAYS] for s in day] for k in KINDS}
    for day in range(REFERENCE_DAYS, last):
        drifted = sum(rule(reference[k], [s.values[k] for s in of_days[day]], level) for k in KINDS)
        if drifted >= least:
            return float(day + 1)
    return None


def evidently(before: Sequence[float], now: Sequence[float], level: float) -> bool:
    """The tests that Evidently picks by default for references of at most 1,000 rows (its documentation, "Data drift
    algorithm"): Kolmogorov-Smirnov for numbers, chi-squared for at most five distinct values."""
    from scipy.stats import chi2_contingency, ks_2samp

    values = sorted({*before, *now})
    if len(values) == 1:
        return False
    if len(set(before)) > _FEW:
        return bool(ks_2samp(before, now, method="asymp").pvalue < level)
    counts = [Counter(before), Counter(now)]
    return bool(chi2_contingency([[c[v] for v in values] for c in counts], correction=False).pvalue < level)


def psi(before: Sequence[float], now: Sequence[float], level: float) -> bool:
    """Population stability index over tenths of the reference above 0.2, the rule of thumb of credit scoring."""
    edges = np.unique(np.quantile(before, np.linspace(0, 1, 11)[1:-1]))
    old, new = (np.bincount(np.searchsorted(edges, x, side="left"), minlength=len(edges) + 1) for x in (before, now))
    p, q = (np.maximum(c / c.sum(), 1e-4) for c in (old, new))
    return bool(math.fsum((q - p) * np.log(q / p)) > 0.2)
