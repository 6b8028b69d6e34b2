"""Which scenario classes get more room, because what serves now fails in them (pure).

Only the names of classes and counts come here from the comparison: no held-out item, prompt or answer.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

import msgspec

from pawl.curation.readiness import Check

SHRUNK = 5.0  # items of the overall failure rate that each class is given beside its own: a few items show little
_SHOWN = 3


class Focus(msgspec.Struct, frozen=True, kw_only=True):
    """One scenario class in the last comparison of what serves now."""

    name: str
    asked: int  # held-out items of the class that were graded
    failed: int  # of those, wrong answers
    ways: dict[str, int] = {}  # the failure patterns they are in -> wrong answers

    @property
    def told(self) -> str:
        """For people."""
        ways = sorted(self.ways.items(), key=lambda w: (-w[1], w[0]))[:_SHOWN]
        how = f" ({', '.join(f'{name} {n}' for name, n in ways)})" if ways else ""
        return f"{self.name}: {self.failed} of {self.asked} wrong{how}"


def failing(classes: Iterable[Focus]) -> tuple[Focus, ...]:
    """Those that fail at least as often as all do together, the most failing first.

    Rates are drawn towards that of all, by SHRUNK items, so that one wrong answer of two is not taken for half.
    """
    known = [c for c in classes if c.name and c.asked]
    overall = _overall(known)
    asked, failed = sum(c.asked for c in known), sum(c.failed for c in known)
    # In whole numbers: where all fail alike, a rate that is rounded could lie below that of all.
    found = [c for c in known if c.failed and c.failed * asked >= failed * c.asked]
    return tuple(sorted(found, key=lambda c: (-_rate(c, overall), c.name)))


def rooms(focus: Sequence[Focus], room: int) -> dict[str, int]:
    """`room` shared out in proportion to the failure rates, to whole examples by largest remainders."""
    overall = _overall(focus)
    rates = {c.name: _rate(c, overall) for c in focus}
    total = sum(rates.values())
    if room <= 0 or not total:
        return {}
    exact = {name: room * rate / total for name, rate in rates.items()}
    found = {name: int(amount) for name, amount in exact.items()}
    for name in sorted(exact, key=lambda n: (found[n] - exact[n], n))[: room - sum(found.values())]:
        found[name] += 1
    return found


def check(focus: Sequence[Focus], taught: Iterable[str]) -> tuple[Check, ...]:
    """A line of the readiness card: whether training holds any example of each class that fails; none without such.

    `taught`: the class of each training example.
    """
    if not focus:
        return ()
    counts = Counter(taught)
    told = "; ".join(f"{c.told}, {counts[c.name]:,} examples" for c in focus)
    return (Check("failing classes", "green" if all(counts[c.name] for c in focus) else "red", told, "some of each"),)


def _overall(classes: Sequence[Focus]) -> float:
    asked = sum(c.asked for c in classes)
    return sum(c.failed for c in classes) / asked if asked else 0.0


def _rate(c: Focus, overall: float) -> float:
    return (c.failed + SHRUNK * overall) / (c.asked + SHRUNK)
