"""What tests leave out of a piece of code, and what calls reach of it: found by running them, remembered."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache

import msgspec

from pawl.qe.python_code.observing import BrokeOff, in_sandbox

_BATCH = 60  # runs that share one start of the sandbox
_KEPT = 4096


class Reach(msgspec.Struct, frozen=True, kw_only=True):
    """What statements reach of the code, and all that it has."""

    lines: frozenset[int] = frozenset()
    branches: frozenset[str] = frozenset()
    all_lines: frozenset[int] = frozenset()
    all_branches: frozenset[str] = frozenset()

    @property
    def gaps(self) -> frozenset[str]:
        """Lines (`l3`) and outcomes of decisions (`3:true`) that were not reached."""
        return named(self.all_lines, self.all_branches) - named(self.lines, self.branches)

    @property
    def reached(self) -> frozenset[str]:
        """Lines and outcomes that were."""
        return named(self.lines, self.branches)


def named(lines: Iterable[int], branches: Iterable[str]) -> frozenset[str]:
    """Lines and outcomes of decisions as one set."""
    return frozenset({*(f"l{n}" for n in lines), *branches})


def f1(found: frozenset[str], wanted: frozenset[str]) -> float:
    """Harmonic mean of precision and recall, 0..1; 1 where nothing was wanted and nothing found."""
    if not found and not wanted:
        return 1.0
    return 2 * len(found & wanted) / (len(found) + len(wanted))


@lru_cache(maxsize=_KEPT)
def reach(code: str, statements: tuple[str, ...]) -> Reach:
    """What the statements reach, each run by itself.

    Raises:
        CannotGrade: the sandbox does not start, or broke off.
    """
    return reach_of_all([(code, statements)])[0]


def reach_of_all(runs: Sequence[tuple[str, tuple[str, ...]]]) -> list[Reach]:
    """The same of many pieces of code; nothing is reached where one cannot be run."""
    found: list[Reach] = []
    for start in range(0, len(runs), _BATCH):
        items = [{"code": code, "statements": list(s)} for code, s in runs[start : start + _BATCH]]
        found += [_reach(told) for told in in_sandbox({"do": "reach", "items": items})]
    return found


def reached_by_calls(code: str, calls: tuple[str, ...]) -> Reach:
    """What calls that a model proposes reach; nothing where they bring the sandbox down."""
    try:
        return reach(code, calls)
    except BrokeOff:
        return Reach()


def _reach(told: dict[str, list[int] | list[str]]) -> Reach:
    fields = {name: told.get(name) or [] for name in ("lines", "branches", "all_lines", "all_branches")}
    return msgspec.convert(fields, Reach)
