"""What `pawl doctor` says about one thing."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import msgspec

Level = Literal["ok", "warn", "fail"]
_ORDER: tuple[Level, ...] = ("ok", "warn", "fail")


class Finding(msgspec.Struct, frozen=True):
    """`what` is how it stands, `todo` what to do about it ("" where it is well). `fix`: the name of what `--fix`
    does."""

    check: str
    level: Level
    what: str
    todo: str = ""
    fix: str = ""


def ok(check: str, what: str) -> Finding:
    """It is well."""
    return Finding(check, "ok", what)


def warn(check: str, what: str, todo: str, fix: str = "") -> Finding:
    """It works and will not for ever, or not as well as it could."""
    return Finding(check, "warn", what, todo, fix)


def fail(check: str, what: str, todo: str, fix: str = "") -> Finding:
    """Something does not work."""
    return Finding(check, "fail", what, todo, fix)


def worst(findings: Iterable[Finding]) -> Level:
    """The gravest level (pure)."""
    return max((f.level for f in findings), key=_ORDER.index, default="ok")
