"""The gate: a comparison in, a decision out (pure)."""

from __future__ import annotations

import math

from pawl.evaluation.report import Comparison, GateDecision
from pawl.fleet.spec import EvaluationSpec

ENOUGH = 0.9  # share of the wanted items that must have been graded on both sides


def gate(comparison: Comparison, spec: EvaluationSpec, rejected_before: str | None) -> GateDecision:
    """Promote, hold (evidence insufficient), or reject, with the reasons.

    Rejects on contamination, on an adapter that was rejected before, on shown harm, and where even the upper
    bound of the challenger's score is under the spec's floor.
    """
    c = comparison
    against = []
    if c.contaminated:
        against.append(
            f"{len(c.contaminated)} source(s) are in training and in evaluation: {', '.join(c.contaminated)}"
        )
    if rejected_before is not None:
        against.append(f"this adapter was rejected before: {rejected_before}")
    if c.verdict == "worse":
        against.append(
            f"worse than the champion by {-c.difference.mean:.3f} "
            f"[{-c.difference.upper:.3f}, {-c.difference.lower:.3f}], p = {c.p_worse:.4f}"
        )
    if c.challenger.score.upper < spec.min_score:
        against.append(f"score at most {c.challenger.score.upper:.3f}, the floor is {spec.min_score:.3f}")
    if against:
        return GateDecision(decision="reject", reasons=tuple(against))

    missing = []
    if c.pairs < ENOUGH * spec.items:
        missing.append(f"{c.pairs} of {spec.items} items were graded on both sides")
    if c.verdict == "not_enough_evidence":
        missing.append(f"a loss of more than {c.margin:.3f} is not excluded (lower bound {c.difference.lower:.3f})")
    if c.challenger.score.lower < spec.min_score:
        missing.append(f"score at least {c.challenger.score.lower:.3f} only, the floor is {spec.min_score:.3f}")
    if missing:
        return GateDecision(decision="hold", reasons=tuple(missing), items_needed=items_needed(c, spec))
    how = "better than" if c.verdict == "better" else f"not worse by more than {c.margin:.3f} than"
    reason = f"{how} the champion: {c.difference.mean:+.3f} [{c.difference.lower:+.3f}, {c.difference.upper:+.3f}]"
    return GateDecision(decision="promote", reasons=(reason,))


def items_needed(comparison: Comparison, spec: EvaluationSpec) -> int:
    """Items that would show the present difference to be no loss, by the interval's shrinking with 1/sqrt(n)."""
    c = comparison
    half = (c.difference.upper - c.difference.lower) / 2
    room = c.difference.mean + c.margin
    if not math.isfinite(half) or room <= 0 or c.pairs == 0:
        return max(spec.items, 2 * c.pairs)
    return max(spec.items, math.ceil(c.pairs * (half / room) ** 2))
