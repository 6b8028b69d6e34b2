"""Weeks by the clock on the wall, and which of them are still to be learnt from."""

from __future__ import annotations

from datetime import UTC, date, datetime
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pawl.errors import ConfigError
from pawl.improvement.weeks import LEAST_S, Schedule, Stretch, latest, missed, schedule_of, shown, ticks, week_of

BERLIN = Schedule(6, 2, 0, "Europe/Berlin")
DAY, HOUR = 86_400.0, 3_600.0


def utc(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()


def test_times_keep_to_the_wall_clock_over_both_changes() -> None:
    # 29 March 2026: 02:00 does not exist in Berlin; 25 October 2026: 02:00 is there twice.
    spring = ticks(BERLIN, utc("2026-04-06T00:00"), 2)
    assert spring == [utc("2026-03-22T01:00"), utc("2026-03-29T01:00"), utc("2026-04-05T00:00")]
    autumn = ticks(BERLIN, utc("2026-11-02T00:00"), 2)
    assert autumn == [utc("2026-10-18T00:00"), utc("2026-10-25T00:00"), utc("2026-11-01T01:00")]
    hours = [(b - a) / HOUR for times in (spring, autumn) for a, b in pairwise(times)]
    assert hours == [168, 167, 168, 169]
    assert shown(Stretch(autumn[1], autumn[2]), "Europe/Berlin").startswith("2026-10-25 02:00 to 2026-11-01 02:00")


def test_the_moment_itself_counts_and_the_one_before_does_not() -> None:
    at = utc("2026-11-22T01:00")
    assert ticks(BERLIN, at, 0) == [at]
    assert ticks(BERLIN, at - 1, 0) == [utc("2026-11-15T01:00")]
    (week,) = latest(BERLIN, at, 1)
    assert week == Stretch(utc("2026-11-15T01:00"), at)


def test_the_week_of_a_day() -> None:
    expected = Stretch(utc("2026-10-25T00:00"), utc("2026-11-01T01:00"))
    assert {week_of(BERLIN, date(2026, 10, d)) for d in range(25, 32)} == {expected}
    assert week_of(BERLIN, date(2026, 11, 1)) != expected


def test_cron_lines() -> None:
    assert schedule_of("0 2 * * 0", "UTC") == schedule_of("0 2 * * 7", "UTC") == Schedule(6, 2, 0, "UTC")
    assert schedule_of("30 3 * * mon", "Asia/Tokyo") == Schedule(0, 3, 30, "Asia/Tokyo")
    for line in ("0 2 * * *", "0 2 1 * 0", "*/5 2 * * 0", "0 2 * * 1-5", "0 25 * * 0", "", "0 2 * * 9"):
        with pytest.raises(ConfigError, match="one time a week"):
            schedule_of(line, "UTC")
    with pytest.raises(ConfigError, match="no time zone is called 'Mars/Base'"):
        schedule_of("0 2 * * 0", "Mars/Base")


def test_only_what_was_missed_is_left_oldest_first() -> None:
    weeks = latest(BERLIN, utc("2026-11-22T12:00"), 4)
    assert missed(weeks[::-1], []) == weeks
    assert missed(weeks, [weeks[2], weeks[0]]) == [weeks[1], weeks[3]]
    assert missed(weeks, weeks) == []


def test_a_schedule_that_was_moved_leaves_the_rest_of_a_week() -> None:
    before = latest(Schedule(0, 3, 0, "UTC"), utc("2026-11-17T00:00"), 3)  # Mondays
    now = latest(BERLIN, utc("2026-11-22T12:00"), 3)  # Sundays, 26 hours before
    # The week in which it was moved begins where the last Monday's ended; nothing is learnt from twice.
    assert missed(now, before) == [Stretch(before[-1].until, now[-1].until)]
    # By an hour: no run of its own for that hour, which goes with the next week.
    later = [Stretch(w.since + HOUR, w.until + HOUR) for w in now]
    assert missed(later, now) == []
    following = Stretch(later[-1].until, later[-1].until + 7 * DAY)
    assert missed([*later, following], now) == [Stretch(now[-1].until, following.until)]


stretches = st.lists(
    st.tuples(st.integers(0, 40), st.integers(1, 12)).map(lambda t: Stretch(t[0] * DAY / 2, (t[0] + t[1]) * DAY / 2)),
    max_size=6,
)


@given(stretches, st.integers(1, 4))
def test_nothing_twice_and_nothing_lost(done: list[Stretch], count: int) -> None:
    weeks = [Stretch(n * 5 * DAY, (n + 1) * 5 * DAY) for n in range(count)]
    left = missed(weeks, done)

    def inside(some: list[Stretch], at: float) -> bool:
        return any(s.since <= at < s.until for s in some)

    assert left == sorted(left, key=lambda s: s.since)
    for n in range(int(weeks[-1].until / DAY * 4)):
        at = n * DAY / 4 + 1
        assert not (inside(left, at) and inside(done, at))
        if not inside(left, at) and not inside(done, at):
            begin = max([0.0, *(d.until for d in done if d.until <= at)])
            end = min([weeks[-1].until, *(d.since for d in done if d.since > at)])
            assert end - begin < LEAST_S
    assert missed(weeks, [*done, *left]) == []
