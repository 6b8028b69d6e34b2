"""Months and days of the report, in the time zone that its schedule is in (pure)."""

from __future__ import annotations

import datetime as dt
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pawl.errors import ConfigError, PawlError


def zone_of(name: str) -> ZoneInfo:
    """A time zone by its name. ConfigError where none is called so."""
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError) as e:
        raise ConfigError("the settings", [f"PAWL_TIMEZONE: no time zone is called {name!r}"]) from e


def present_and_last(now: float, zone: dt.tzinfo) -> tuple[str, str]:
    """The month that it is there now, and the one before."""
    this = dt.datetime.fromtimestamp(now, zone).date().replace(day=1)
    return _name(this), _name(this - dt.timedelta(days=1))


def bounds_of(month: str, now: float, zone: dt.tzinfo) -> tuple[str, float, float]:
    """(its name as 2026-01, however it was written; its begin; its end) of a month there, epoch seconds.

    PawlError where it is no month or has not begun.
    """
    try:
        first = dt.datetime.strptime(month, "%Y-%m").date()
    except ValueError as e:
        raise PawlError(f"{month!r} is no month: write it like 2026-11") from e
    since = _midnight(first, zone)
    if since > now:
        raise PawlError(f"{_name(first)} has not begun: nothing of it can be reported yet")
    return _name(first), since, _midnight((first.replace(day=28) + dt.timedelta(days=4)).replace(day=1), zone)


def days_of(first: float, last: float, zone: dt.tzinfo) -> list[tuple[str, float, float]]:
    """(its date, its begin, its end) of every day there from one moment to another, both in it."""
    day, found = dt.datetime.fromtimestamp(first, zone).date(), []
    while (begin := _midnight(day, zone)) <= last:
        # Days are not all 24 hours long.
        found.append((day.isoformat(), begin, _midnight(day := day + dt.timedelta(days=1), zone)))
    return found


def _midnight(day: dt.date, zone: dt.tzinfo) -> float:
    return dt.datetime.combine(day, dt.time(), zone).timestamp()


def _name(month: dt.date) -> str:
    return month.isoformat()[:7]
