"""Which checks of an observation make a small suite that misses nothing, and how it is written down."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import TypeVar

from pawl.qe.python_code.observing import Check

_What = TypeVar("_What")


def chosen(
    checks: Sequence[Check], gains: Callable[[Check], set[_What]], rng: random.Random, begin: Sequence[Check] = ()
) -> list[Check]:
    """`begin`, and checks that together gain all that `checks` gain, few of them: each time the one that gains most.

    Of equals the short ones that return something come first, and `rng` decides between the rest.
    """
    taken = list(begin)
    had = {g for c in taken for g in gains(c)}
    left = rng.sample(list(checks), len(checks))
    while True:
        best = max(left, key=lambda c: (len(gains(c) - had), c.kind != "raises", -len(c.text()) // 20), default=None)
        if best is None or not gains(best) - had:
            return taken
        taken.append(best)
        had |= gains(best)
        left.remove(best)


def everything(check: Check) -> set[str]:
    """Mutants, lines and outcomes of decisions, as one set."""
    return {*(f"m{n}" for n in check.kills), *(f"l{n}" for n in check.lines), *check.branches}


def written(checks: Sequence[Check], entry: str) -> str:
    """A pytest file with one function for each check."""
    parts = ["import pytest\n"] if any(c.kind == "raises" for c in checks) else []
    for number, check in enumerate(checks, start=1):
        body = "\n".join(f"    {line}" for line in check.text().splitlines())
        parts.append(f"def test_{entry.strip('_')}_{number}():\n{body}\n")
    return "\n\n".join(parts)
