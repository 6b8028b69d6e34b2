"""The order in which arms are tried, and the reason for each (pure)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from pawl.fleet.routing import Strategy
from pawl.rollout.route import Arm


class Candidate(msgspec.Struct, frozen=True):
    """An arm that could answer, as it stands now."""

    arm: Arm
    why: str  # what it is to this agent: champion, challenger at 20 %, ...
    cost_usd: float = 0.0  # expected, of this request
    latency_s: float = 0.0  # expected, queue included; 0 where nothing is known
    quality: float = 0.5  # expected score, 0..1
    barred: str | None = None  # it may not be called now, and why
    weak: str | None = None  # it may be called, after those that are not weak, and why


class Choice(msgspec.Struct, frozen=True):
    """One arm in the order, with the reason that is recorded."""

    arm: Arm
    reason: str
    fallback: bool


def order(strategy: Strategy, good: Sequence[Candidate], fallback: Sequence[Candidate]) -> list[Choice]:
    """The arms to try: those good enough by the strategy, then the fallbacks as they stand.

    Barred arms are left out; weak ones come after everything that is not weak. Each arm stands once. The first
    choice says why it is not the one that would have been first.
    """
    if len(good) == 1 and not good[0].barred and not good[0].weak and not fallback:
        return [Choice(good[0].arm, good[0].why, False)]  # what nearly every request is
    preferred = _ranked(strategy, good)
    seen: set[str] = set()
    sound: list[tuple[Candidate, bool]] = []
    last: list[tuple[Candidate, bool]] = []
    for candidate, behind in [*((c, False) for c in preferred), *((c, True) for c in fallback)]:
        if candidate.arm.name in seen or candidate.barred:
            continue
        seen.add(candidate.arm.name)
        (last if candidate.weak else sound).append((candidate, behind))
    passed = next((c for c in preferred if c.barred or c.weak), None)
    choices: list[Choice] = []
    for n, (candidate, behind) in enumerate([*sound, *last]):
        late = behind or n > 0
        reason = candidate.why
        if n > 0:
            reason = f"fallback: {choices[0].arm.name} failed"
        elif passed is not None and passed.arm.name != candidate.arm.name:
            reason = f"{'fallback: ' if behind else ''}{passed.arm.name} {passed.barred or passed.weak}"
            reason += "" if behind else f", so {candidate.why}"
        choices.append(Choice(candidate.arm, reason, late))
    return choices


def _ranked(strategy: Strategy, good: Sequence[Candidate]) -> list[Candidate]:
    if len(good) < 2:
        return list(good)
    dearest = max(c.cost_usd for c in good) or 1.0
    slowest = max(c.latency_s for c in good) or 1.0
    keys: dict[Strategy, Callable[[Candidate], tuple[float, ...]]] = {
        # Local ones in the order given: which local model is better is for the gate to say, not for the router.
        "privacy_first": lambda c: (c.arm.kind != "local",),
        "cost_optimized": lambda c: (c.cost_usd, c.latency_s),
        "quality_optimized": lambda c: (-c.quality, c.cost_usd),
        "latency_optimized": lambda c: (c.latency_s, c.cost_usd),
        "balanced": lambda c: (c.cost_usd / dearest + c.latency_s / slowest - c.quality,),
    }
    return sorted(good, key=keys[strategy])  # stable: equals keep the order of fleet.yaml
