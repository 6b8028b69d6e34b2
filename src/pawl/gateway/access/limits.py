"""Rates and budgets of keys and agents.

Rates: the generic cell rate algorithm (ITU-T I.371, annex A), a leaky bucket in one number. Budgets: what was spent
in the running UTC day and month, of all gateways together, at most a second old.
"""

from __future__ import annotations

import datetime as dt
import functools
import math
from collections.abc import Callable, Iterable

import msgspec

from pawl.fleet.limits import LimitsSpec
from pawl.rollout.control import Spent

MINUTE_S = 60.0
_INSTANT_S = 1e-4  # epoch seconds as floats are no finer than a microsecond


class Exceeded(msgspec.Struct, frozen=True):
    """A limit that is used up."""

    what: str
    retry_after_s: float


class Rate:
    """At most `per_minute` units, a minute's worth at once."""

    def __init__(self, per_minute: float) -> None:
        self._each = MINUTE_S / per_minute
        self._full_at = 0.0  # the time at which the bucket would be empty again

    def wait(self, now: float) -> float:
        """Seconds until a unit fits; 0 where it does now."""
        wait = self._full_at - now - MINUTE_S + self._each
        return wait if wait > _INSTANT_S else 0.0

    def take(self, now: float, units: float = 1.0) -> None:
        """Use so many, whether they fit or not: tokens are known only after they were used."""
        self._full_at = max(self._full_at, now) + units * self._each


def periods(at: float) -> tuple[str, str]:
    """The UTC day and month of a moment (epoch seconds)."""
    return _periods_of_minute(int(at // MINUTE_S))


@functools.lru_cache(maxsize=8)
def _periods_of_minute(minute: int) -> tuple[str, str]:
    day = dt.datetime.fromtimestamp(minute * MINUTE_S, dt.UTC).strftime("%Y-%m-%d")
    return day, day[:7]


def until_next(period: str, at: float) -> float:
    """Seconds until that day or month is over."""
    now = dt.datetime.fromtimestamp(at, dt.UTC)
    if len(period) > 7:
        end = dt.datetime.combine(now.date() + dt.timedelta(days=1), dt.time(), dt.UTC)
    else:
        year, month = (now.year + 1, 1) if now.month == 12 else (now.year, now.month + 1)
        end = dt.datetime(year, month, 1, tzinfo=dt.UTC)
    return max(1.0, (end - now).total_seconds())


class Meter:
    """Counts what is used and says what is used up. `clock`: epoch seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._rates: dict[tuple[str, float, str], Rate] = {}
        self._known: dict[tuple[str, str], Spent] = {}  # of all gateways, as last read
        # Of this one, not written yet: US dollars, tokens, requests. Lists, because every request adds to four of them.
        self._fresh: dict[tuple[str, str], list[float]] = {}

    def exceeded(self, scope: str, limits: LimitsSpec) -> Exceeded | None:
        """The first limit of a scope that is used up, None where there is room."""
        now = self._clock()
        for per_minute, unit in ((limits.requests_per_minute, "requests"), (limits.tokens_per_minute, "tokens")):
            if per_minute is not None and (wait := self._rate(scope, per_minute, unit).wait(now)) > 0:
                return Exceeded(f"{per_minute:g} {unit} a minute", wait)
        day, month = periods(now)
        for budget, period in ((limits.usd_per_day, day), (limits.usd_per_month, month)):
            if budget is not None and self.spent(scope, period) >= budget:
                name = "day" if period is day else "month"
                return Exceeded(f"{budget:g} USD a {name}", until_next(period, now))
        return None

    def begin(self, scope: str, limits: LimitsSpec) -> None:
        """A request was let in."""
        if limits.requests_per_minute is not None:
            self._rate(scope, limits.requests_per_minute, "requests").take(self._clock())

    def used(self, scope: str, limits: LimitsSpec, tokens: int, usd: float) -> None:
        """A request has ended."""
        now = self._clock()
        if limits.tokens_per_minute is not None and tokens:
            self._rate(scope, limits.tokens_per_minute, "tokens").take(now, tokens)
        for period in periods(now):
            fresh = self._fresh.get((scope, period))
            if fresh is None:
                fresh = self._fresh[scope, period] = [0.0, 0, 0]
            fresh[0] += usd
            fresh[1] += tokens
            fresh[2] += 1

    def spent(self, scope: str, period: str) -> float:
        """US dollars of that scope in that period."""
        known, fresh = self._known.get((scope, period)), self._fresh.get((scope, period))
        return (known.usd if known else 0.0) + (fresh[0] if fresh else 0.0)

    def take_fresh(self) -> list[Spent]:
        """What is to be written; it counts as known from here on."""
        fresh, self._fresh = self._fresh, {}
        rows = [Spent(scope, period, usd, int(tokens), int(n)) for (scope, period), (usd, tokens, n) in fresh.items()]
        for row in rows:
            had = self._known.get((row.scope, row.period))
            self._known[row.scope, row.period] = row if had is None else had.plus(row)
        return rows

    def give_back(self, rows: Iterable[Spent]) -> None:
        """Those could not be written: they are tried again."""
        for row in rows:
            at = (row.scope, row.period)
            if (known := self._known.get(at)) is not None:
                self._known[at] = known.plus(Spent(row.scope, row.period, -row.usd, -row.tokens, -row.requests))
            fresh = self._fresh.setdefault(at, [0.0, 0, 0])
            fresh[0] += row.usd
            fresh[1] += row.tokens
            fresh[2] += row.requests

    def learn(self, rows: Iterable[Spent]) -> None:
        """What all gateways have written by now."""
        self._known = {(r.scope, r.period): r for r in rows}

    def _rate(self, scope: str, per_minute: float, unit: str) -> Rate:
        at = (scope, per_minute, unit)
        found = self._rates.get(at)
        if found is None:
            found = self._rates[at] = Rate(per_minute)
        return found


def retry_after(seconds: float) -> bytes:
    """The header's value: whole seconds, never 0 (RFC 9110, 10.2.3)."""
    return str(max(1, math.ceil(seconds))).encode()
