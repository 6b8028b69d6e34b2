"""How a run is kept in: the levels, which of them work here, and which will do."""

from __future__ import annotations

import logging
import shutil
import sys
from functools import lru_cache
from typing import Literal

from pawl.qe.item import CannotGrade
from pawl.sandbox.outcome import Limits

Level = Literal["bubblewrap", "namespaces", "guard"]
BEST_FIRST: tuple[Level, ...] = ("bubblewrap", "namespaces", "guard")
log = logging.getLogger("pawl.sandbox")


class _Demand:
    """What this process demands; the fleet's `sandbox.least`."""

    least: Level | None = None
    warned = False


def demand(least: Level | None) -> None:
    """From now on `best` takes nothing below this level in this process; None: whatever works."""
    _Demand.least = least


@lru_cache(maxsize=8)
def available(level: Level) -> bool:
    """Whether this machine can run something at that level: tried out, once."""
    from pawl.sandbox.process import run

    try:
        done = run({"probe.py": "print('in')"}, ["probe.py"], limits=Limits(wall_s=10), level=level)
    except CannotGrade:
        return False
    return done.ok and done.stdout == "in\n"


def strongest() -> Level | None:
    """The strongest level that works here, whether it will do or not; None where none does."""
    return next((level for level in BEST_FIRST if available(level)), None)


def is_enough(level: Level, least: Level | None) -> bool:
    """Whether a level is as strong as the least that is demanded (pure)."""
    return least is None or BEST_FIRST.index(level) <= BEST_FIRST.index(least)


def best() -> Level:
    """The strongest level that works here and is demanded. Where that is `guard` and nobody asked for it, one warning.

    Raises:
        CannotGrade: none works, or none that is strong enough; the text says what to install.
    """
    level, least = strongest(), _Demand.least
    if level is None:
        raise CannotGrade("generated code cannot be run apart here: not even a process with limits starts")
    if not is_enough(level, least):
        raise CannotGrade(
            f"fleet.yaml has generated code run at sandbox.least: {least} or stronger, and the best that works here "
            f"is {level}: {remedy()}"
        )
    if level == "guard" and least is None and not _Demand.warned:
        _Demand.warned = True
        log.warning(
            "generated code is kept in by the guard alone, which does not stop an attack: %s. "
            "`sandbox: {least: namespaces}` in fleet.yaml refuses to run it so, `least: guard` accepts it",
            remedy(),
        )
    return level


def remedy() -> str:
    """What makes a stronger level work on this machine, in words."""
    if not sys.platform.startswith("linux"):
        return "the stronger levels need Linux, so grade there or in a Linux container"
    allow = "let this user make namespaces (in a container: a seccomp profile that allows it, or CAP_SYS_ADMIN)"
    if shutil.which("bwrap") is None:
        return f"install bubblewrap (apt-get install bubblewrap, or dnf install bubblewrap) and {allow}"
    return f"bubblewrap is installed and does not start, so {allow}"
