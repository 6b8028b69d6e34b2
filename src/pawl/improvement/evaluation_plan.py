"""Before a comparison: how many items its margin needs, and whether there are so many."""

from __future__ import annotations

from collections import Counter

import msgspec

from pawl.evaluation.power import MOST, Spread, chance_to_promote, detectable, items_for, items_of, picked, spread_of
from pawl.improvement.failing_classes import comparisons
from pawl.improvement.held_out import split_of
from pawl.improvement.workplace import Workplace

SD, ICC = 0.4, 0.1  # where nothing was measured: one right-or-wrong item in six differs, and sources matter a little


class EvaluationPlan(msgspec.Struct, frozen=True, kw_only=True):
    """What the gate can be expected to do. `None` of items: not even MOST would do."""

    agent: str
    margin: float
    alpha: float
    power: float
    sd: float  # of single items' paired differences
    icc: float
    per_source: float  # items
    design_effect: float
    known_from: str  # the candidate whose comparison it was measured on; "" where assumed
    items: int  # that the spec asks for
    available: int  # held out, whether picked or not
    sources: int  # of those
    chance: float  # that a challenger as good as its champion is promoted on what will be asked
    detectable: float  # the smallest loss that will be called worse with `power`
    needed: (
        int | None
    )  # of those that are held out, so that a challenger as good as its champion is promoted with power
    needed_elsewhere: int | None  # the same, of proportionally more sources
    needed_if_better: int | None  # and where the challenger is better by the margin

    @property
    def good(self) -> bool:
        """Whether what will be asked is enough for a challenger as good as its champion."""
        return self.chance >= self.power


def plan(
    place: Workplace,
    *,
    margin: float | None = None,
    alpha: float | None = None,
    power: float | None = None,
    sd: float | None = None,
    icc: float | None = None,
) -> EvaluationPlan:
    """From the agent's spec, its held-out items, and the spread of its newest comparison unless one is given."""
    spec = place.agent.evaluation
    margin, alpha, power = margin or spec.margin, alpha or spec.alpha, power or spec.power
    held = split_of(place.agent).test
    sizes = list(Counter(i.source for i in held).values())
    measured, name = (None, "") if sd is not None else newest_spread(place)
    sd = sd if sd is not None else measured.sd if measured else SD
    icc = icc if icc is not None else measured.icc if measured else ICC
    asked = min(spec.items, len(held)) or spec.items
    spread = picked(sizes, asked / max(1, len(held)), sd, icc)
    return EvaluationPlan(
        agent=place.agent_name,
        margin=margin,
        alpha=alpha,
        power=power,
        sd=sd,
        icc=icc,
        per_source=spread.per_source,
        design_effect=spread.design_effect,
        known_from=name,
        items=spec.items,
        available=len(held),
        sources=len(sizes),
        chance=chance_to_promote(asked, spread, margin, alpha),
        detectable=detectable(asked, spread, alpha, power),
        needed=items_of(sizes, sd, icc, margin, alpha, power),
        needed_elsewhere=items_for(spread, margin, alpha, power),
        needed_if_better=items_for(spread, margin, alpha, power, margin),
    )


def newest_spread(place: Workplace) -> tuple[Spread | None, str]:
    """Of the agent's latest comparison on this machine, and the candidate it was of; (None, "") where there is none."""
    for candidate, made in comparisons(place):
        before = {i.item: i.score for i in made.champion.items if i.score is not None}
        rows = [
            (i.source, i.score - before[i.item])
            for i in made.challenger.items
            if i.score is not None and i.item in before
        ]
        found = spread_of(rows)
        if found is not None and found.sd > 0:
            return found, candidate.id
    return None, ""


def told(made: EvaluationPlan) -> str:
    """For people."""
    known = f"measured on {made.known_from}" if made.known_from else "assumed"
    lines = [
        f"{made.agent}: margin {made.margin:g}, alpha {made.alpha:g}, power {made.power:g}",
        f"  differences of items: standard deviation {made.sd:.3f}, {known}; of one source {made.icc:.2f} in common",
        f"  held out: {made.available:,} items of {made.sources:,} sources; asked: {made.items:,}, "
        f"{made.per_source:.1f} a source, {made.design_effect:.2f} of them tell as much as one alone",
        f"  a challenger as good as its champion is promoted in {made.chance:.0%} of cases",
        f"  a loss of {made.detectable:.3f} or more is called worse in {made.power:.0%} of cases",
        f"  for {made.power:.0%} it takes {_items(made.needed, made.available)} of those held out, or "
        f"{_items(made.needed_elsewhere, MOST)} of more sources; if it is better by the margin, "
        f"{_items(made.needed_if_better, MOST)} do",
    ]
    if made.good:
        lines.append("good: what is asked is enough")
    elif made.needed is not None:
        lines.append(f"too few: set evaluation.items to {made.needed}, or a wider margin")
    else:
        lines.append("too few, and so many are not held out: more sources, a larger data.test_percent, a wider margin")
    return "\n".join(lines)


def _items(n: int | None, most: int) -> str:
    return f"{n:,}" if n is not None else f"more than {most:,}"
