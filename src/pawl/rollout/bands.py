"""How far below the champion's quality a challenger is shown to be, at any look (pure).

For a share r of the champion's quality the same bets as in `sequential.harm_path` are made on mine - r * theirs: they
win where the challenger's mean is below r times the champion's. What r the bets have ruled out by now is a confidence
sequence's upper bound of the ratio of the two means (test inversion; Waudby-Smith and Ramdas, "Estimating means of
bounded random variables by betting", JRSS B 86, 2024, section 2). The bets win less for a smaller r, path by path, so a
band whose alpha is no larger than that of the milder one above it is never entered before that.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from pawl.fleet.rollout import BandsSpec
from pawl.rollout.sequential import harm

Band = Literal["", "hold", "halve"]
Both = tuple[float, float]  # (challenger's score, champion's), each 0..1
_BISECTIONS = 12


def ratio_evidence(both: Sequence[Both], share: float) -> tuple[float, float]:
    """E-values against "the challenger reaches `share` of the champion's mean": now, and the largest so far."""
    return harm([mine - share * theirs for mine, theirs in both])


def ratio_bound(both: Sequence[Both], alpha: float) -> float | None:
    """The share of the champion's quality that the challenger is shown to be below, at level alpha, at some look.

    None where it is not shown to be below the champion at all.
    """
    target = 1.0 / alpha
    if ratio_evidence(both, 1.0)[1] < target:
        return None
    low, high = 0.0, 1.0
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2.0
        if ratio_evidence(both, middle)[1] >= target:
            high = middle
        else:
            low = middle
    return high


def band(both: Sequence[Both], spec: BandsSpec) -> Band:
    """The gravest band that the evidence lies in now; it leaves a band when it turns.

    A challenger at or above a band's share ever enters it with that band's alpha at most.
    """
    if ratio_evidence(both, spec.halve)[0] >= 1.0 / spec.halve_alpha:
        return "halve"
    if ratio_evidence(both, spec.hold)[0] >= 1.0 / spec.hold_alpha:
        return "hold"
    return ""
