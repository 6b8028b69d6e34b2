"""Which weeks of recorded traffic an agent has not learnt from yet (pure).

A week is what lies between two times of the weekly schedule: local wall-clock times in its time zone, so that one with
a change of the clocks has 167 or 169 hours.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import date, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import msgspec

from pawl.errors import ConfigError

LEAST_S = 86_400.0  # less of a week than this is no week of its own
_DAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")


class Schedule(msgspec.Struct, frozen=True):
    """Once a week, by the clock on the wall there."""

    weekday: int = 6  # Monday is 0
    hour: int = 2
    minute: int = 0
    timezone: str = "UTC"


class Stretch(msgspec.Struct, frozen=True):
    """A stretch of traffic, epoch seconds: since <= at < until."""

    since: float
    until: float


def schedule_of(cron: str, timezone: str) -> Schedule:
    """A weekly cron line, as `0 2 * * 0` or `30 3 * * sun`. ConfigError for another, and for an unknown time zone."""
    problem = ConfigError("the weekly schedule", [f"{cron!r} is not one time a week, as `0 2 * * 0` is"])
    fields = cron.split()
    if len(fields) != 5 or fields[2:4] != ["*", "*"]:
        raise problem
    day = fields[4].lower()
    number = _DAYS.index(day[:3]) if day[:3] in _DAYS else int(day) if day in set("01234567") else None
    if number is None or not fields[0].isdigit() or not fields[1].isdigit():
        raise problem
    found = Schedule((number - 1) % 7, int(fields[1]), int(fields[0]), timezone)
    if found.hour > 23 or found.minute > 59:
        raise problem
    _zone(found)
    return found


def ticks(schedule: Schedule, now: float, back: int) -> list[float]:
    """The latest `back` + 1 times of the schedule that are not after `now`, oldest first, in epoch seconds.

    A time that the clocks skip is taken by the offset before the change, one that they show twice as the first.
    """
    today = datetime.fromtimestamp(now, _zone(schedule)).date()
    day = today + timedelta(days=1 + (schedule.weekday - today.weekday() - 1) % 7)
    found: list[float] = []
    while len(found) <= back:
        if (at := _at(schedule, day)) <= now:
            found.append(at)
        day -= timedelta(days=7)
    return found[::-1]


def week_of(schedule: Schedule, day: date) -> Stretch:
    """The week that holds noon of that day, there."""
    zone = _zone(schedule)
    noon = datetime(day.year, day.month, day.day, 12, tzinfo=zone).timestamp()
    (begin,) = ticks(schedule, noon, 0)
    first = datetime.fromtimestamp(begin, zone).date()
    return Stretch(begin, _at(schedule, first + timedelta(days=7)))


def missed(weeks: Iterable[Stretch], done: Iterable[Stretch]) -> list[Stretch]:
    """What of these weeks has not been learnt from, oldest first.

    Of a week that was done in part (the schedule was moved since) the rest is missed. A rest of less than a day goes
    with the week beside it, where that is missed too, so that nothing between two weeks is left out for good.
    """
    gaps: list[Stretch] = []
    covered = sorted(done, key=lambda d: (d.since, d.until))
    for week in sorted(weeks, key=lambda w: w.since):
        gaps += _outside(week, covered)
    found: list[Stretch] = []
    for gap in gaps:
        before = found[-1] if found else None
        if before is not None and before.until == gap.since and min(_length(before), _length(gap)) < LEAST_S:
            found[-1] = Stretch(before.since, gap.until)
        else:
            found.append(gap)
    return [f for f in found if _length(f) >= LEAST_S]


def latest(schedule: Schedule, now: float, back: int) -> list[Stretch]:
    """The latest `back` weeks that have ended, oldest first."""
    times = ticks(schedule, now, back)
    return [Stretch(a, b) for a, b in pairwise(times)]


def shown(stretch: Stretch, timezone: str) -> str:
    """As people read it: `2026-11-08 02:00 to 2026-11-15 02:00 Europe/Berlin`."""
    zone = _zone(Schedule(timezone=timezone))
    begin, end = (datetime.fromtimestamp(at, zone) for at in (stretch.since, stretch.until))
    return f"{begin:%Y-%m-%d %H:%M} to {end:%Y-%m-%d %H:%M} {timezone}"


def _length(stretch: Stretch) -> float:
    return stretch.until - stretch.since


def _outside(week: Stretch, covered: Sequence[Stretch]) -> list[Stretch]:
    """The parts of `week` in none of `covered`, which is sorted by its beginnings."""
    found, at = [], week.since
    for one in covered:
        if one.since > at and at < week.until:
            found.append(Stretch(at, min(one.since, week.until)))
        at = max(at, one.until)
    if at < week.until:
        found.append(Stretch(at, week.until))
    return found


def _at(schedule: Schedule, day: date) -> float:
    zone = _zone(schedule)
    return datetime(day.year, day.month, day.day, schedule.hour, schedule.minute, tzinfo=zone).timestamp()


def _zone(schedule: Schedule) -> ZoneInfo:
    try:
        return ZoneInfo(schedule.timezone)
    except (ZoneInfoNotFoundError, ValueError) as e:
        problem = f"no time zone is called {schedule.timezone!r}; write one as Europe/Berlin"
        raise ConfigError("the weekly schedule", [problem]) from e
