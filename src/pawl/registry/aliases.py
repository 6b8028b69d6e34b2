"""The aliases that only promotion moves, and where each should point (pure)."""

from __future__ import annotations

ALIASES = ("champion", "challenger", "previous")


def alias_pointer(agent: str, alias: str) -> str:
    """Name of the control database's pointer that keeps which version the alias should name; "" where none."""
    return f"alias:{agent}:{alias}"


def strayed(expected: tuple[int, str], found: str) -> bool:
    """Whether an alias names another version than promotion let it name last; `found`: "" where there is none.

    `expected` is the pointer's (revision, value); before its first write nothing is expected.
    """
    revision, number = expected
    return revision > 0 and number != found
