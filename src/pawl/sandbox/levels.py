"""How a run is kept in: the levels, and which of them work here."""

from __future__ import annotations

from functools import lru_cache
from typing import Literal

from pawl.qe.item import CannotGrade
from pawl.sandbox.outcome import Limits

Level = Literal["bubblewrap", "namespaces", "guard"]
BEST_FIRST: tuple[Level, ...] = ("bubblewrap", "namespaces", "guard")


@lru_cache(maxsize=8)
def available(level: Level) -> bool:
    """Whether this machine can run something at that level: tried out, once."""
    from pawl.sandbox.process import run

    try:
        done = run({"probe.py": "print('in')"}, ["probe.py"], limits=Limits(wall_s=10), level=level)
    except CannotGrade:
        return False
    return done.ok and done.stdout == "in\n"


def best() -> Level:
    """The strongest level that works here.

    Raises:
        CannotGrade: none does.
    """
    for level in BEST_FIRST:
        if available(level):
            return level
    raise CannotGrade("generated code cannot be run apart here: not even a process with limits starts")
