"""The gate: a comparison in, a decision out (pure)."""

from __future__ import annotations

import math
from collections.abc import Iterator

from pawl.evaluation.report import Comparison, GateDecision, Slice
from pawl.fleet.evaluation import EvaluationSpec

ENOUGH = 0.9  # share of the wanted items that must have been graded on both sides
MOST_NAMED = 5


def gate(comparison: Comparison, spec: EvaluationSpec, rejected_before: str | None) -> GateDecision:
    """Promote, hold (evidence insufficient), or reject, with the reasons.

    Rejects on contamination, on an adapter that was rejected before, on shown harm (in all, in a protected slice, in
    the regression suite), on a must-pass item that fails, and where even the upper bound of the challenger's score is
    under the spec's floor. Promotes only where a loss of the margin is excluded at alpha, and one of twice the margin
    at 1 %.
    """
    against = list(_against(comparison, spec, rejected_before))
    if against:
        failed = tuple(s.name for s in comparison.slices if _harmed(s, comparison.alpha) and s.protected)
        return GateDecision(decision="reject", reasons=tuple(against), slices=failed)
    missing = list(_missing(comparison, spec))
    if missing:
        needed = items_needed(comparison, spec)
        reasons = [reason for reason, _ in missing]
        available = comparison.power.available if comparison.power else 0
        if 0 < available < needed:
            reasons.append(f"the held-out sources have {available} items: more sources are needed")
        return GateDecision(decision="hold", reasons=tuple(reasons), items_needed=needed)
    return GateDecision(decision="promote", reasons=tuple(_for(comparison)))


def items_needed(comparison: Comparison, spec: EvaluationSpec) -> int:
    """Items that would fill what is missing, if differences stay as they are and bounds shrink with 1/sqrt(n)."""
    c = comparison
    wanted = [ratio for _, ratio in _missing(c, spec)]
    if any(not math.isfinite(r) for r in wanted):
        return max(spec.items, 2 * c.pairs)  # nobody knows: as it stands, more items would not help
    return max(spec.items, c.pairs + 1, *(math.ceil(c.pairs * r) for r in wanted)) if wanted else spec.items


def _against(c: Comparison, spec: EvaluationSpec, rejected_before: str | None) -> Iterator[str]:
    if c.contaminated:
        yield f"{len(c.contaminated)} source(s) are in training and in evaluation: {', '.join(c.contaminated)}"
    if rejected_before is not None:
        yield f"this adapter was rejected before: {rejected_before}"
    if c.verdict == "worse":
        yield (
            f"worse than the champion by {-c.difference.mean:.3f} "
            f"[{-c.difference.upper:.3f}, {-c.difference.lower:.3f}], p = {c.p_worse:.4f}"
        )
    for s in c.slices:
        if s.protected and _harmed(s, c.alpha):
            yield f"worse in the protected slice {s.name}: {_slice(s)}"
    if (suite := c.suite) is not None:
        if suite.must_pass_failed:
            yield f"fails {_named(suite.must_pass_failed)} of the regression suite, which must pass"
        if suite.outcomes.p_lost < c.alpha:
            yield (
                f"loses {suite.outcomes.lost} regression items that the champion passes and gains "
                f"{suite.outcomes.gained}, p = {suite.outcomes.p_lost:.4f}: {_named(suite.lost)}"
            )
    if c.challenger.score.upper < spec.min_score:
        yield f"score at most {c.challenger.score.upper:.3f}, the floor is {spec.min_score:.3f}"


def _missing(c: Comparison, spec: EvaluationSpec) -> Iterator[tuple[str, float]]:
    """(what is not shown, the factor by which the items would have to grow); infinite where growing is no help."""
    if c.pairs < ENOUGH * spec.items:
        yield f"{c.pairs} of {spec.items} items were graded on both sides", 1.0
    if (judge := c.judge) is not None and not judge.trusted:
        found = f"{judge.agreement.mean:.2f} [{judge.agreement.lower:.2f}, {judge.agreement.upper:.2f}]"
        yield (
            f"the judge {judge.judge} is not known to judge as people do: it shares {found} of {judge.pairs} "
            f"preferences; the lower bound must reach {judge.least:.2f} on at least {judge.wanted}",
            math.inf,
        )
    if c.pairs and c.challenger.score.mean <= 0:
        # Two models that fail alike, or a server that fails for both, must not look like one that holds.
        yield "no answer of the challenger scores above 0, so that nothing was shown", math.inf
    if c.verdict not in ("better", "not_worse"):
        if c.p_worse < c.alpha:
            yield f"it may be worse (p = {c.p_worse:.4f}), though not clearly", math.inf
        else:
            reason = f"a loss of more than {c.margin:.3f} is not excluded (it may be {c.loss_at_most:.3f})"
            yield reason, _growth(c.difference.mean, c.loss_at_most, c.margin)
    if c.loss_surely_at_most >= 2 * c.margin:
        reason = f"a loss of twice the margin is not excluded at 1 % (it may be {c.loss_surely_at_most:.3f})"
        yield reason, _growth(c.difference.mean, c.loss_surely_at_most, 2 * c.margin)
    margin = c.protected_margin or c.margin
    there = {s.name: s for s in c.slices if s.protected}
    for name in spec.protected:
        if name not in there:
            yield f"no item is in the protected slice {name}", math.inf
        elif there[name].loss_at_most >= margin:
            s = there[name]
            reason = f"a loss of more than {margin:.3f} in the protected slice {name} is not excluded: {_slice(s)}"
            yield reason, _growth(s.difference.mean, s.loss_at_most, margin)
    if c.suite is not None and c.suite.must_pass_unknown:
        yield f"{_named(c.suite.must_pass_unknown)} must pass, and could not be asked or graded", math.inf
    if c.challenger.score.lower < spec.min_score:
        room, half = c.challenger.score.mean - spec.min_score, c.challenger.score.mean - c.challenger.score.lower
        reason = f"score at least {c.challenger.score.lower:.3f} only, the floor is {spec.min_score:.3f}"
        yield reason, (half / room) ** 2 if room > 0 else math.inf


def _for(c: Comparison) -> Iterator[str]:
    how = "better than" if c.verdict == "better" else f"not worse by more than {c.margin:.3f} than"
    yield f"{how} the champion: {c.difference.mean:+.3f} [{c.difference.lower:+.3f}, {c.difference.upper:+.3f}]"
    for s in c.slices:
        if _harmed(s, c.alpha):
            yield f"but worse in the slice {s.name}, which is not protected: {_slice(s)}"


def _harmed(s: Slice, alpha: float) -> bool:
    return s.holm_worse < alpha


def _growth(mean: float, loss_at_most: float, margin: float) -> float:
    """By how much items must grow until the bound, which is so far from the mean, is inside the margin."""
    room = mean + margin
    return ((mean + loss_at_most) / room) ** 2 if room > 0 else math.inf


def _slice(s: Slice) -> str:
    found = s.difference
    return f"{found.mean:+.3f} [{found.lower:+.3f}, {found.upper:+.3f}] on {s.items} items, Holm p = {s.holm_worse:.4f}"


def _named(ids: tuple[str, ...]) -> str:
    more = f" and {len(ids) - MOST_NAMED} more" if len(ids) > MOST_NAMED else ""
    return ", ".join(i[:12] for i in ids[:MOST_NAMED]) + more
