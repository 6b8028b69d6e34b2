"""Whether what comes now is like what came before, asked after every session, for ever (pure).

Each session gives one number of each kind. It is ranked among all earlier ones of its part of the week, which gives a
conformal p-value: as long as the sessions of a part are exchangeable, these are independent and uniform, whatever the
numbers' distribution (Vovk, Gammerman and Shafer, "Algorithmic Learning in a Random World", 2nd ed. 2022, ch. 8; the
parts are Mondrian categories, ch. 4). Against that a gambler bets: his wealth exceeds 1/alpha at any time, ever, with
probability alpha at most (Ville 1939). The bets are of the kind of Vovk et al., "Retrain or not retrain: conformal test
martingales for change-point detection" (COPA 2021), with a second polynomial for changes of spread, as Neyman's smooth
test has it ("Smooth test for goodness of fit", 1937). Since nobody knows when a drift begins, wealth sleeps and wakes
bit by bit: a mixture over starting times, which is a martingale too and costs the logarithm of the time waited (Shin,
Ramdas and Rinaldo, "E-detectors", NEJSDS 2023, section 4, weigh starts likewise).
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from math import log1p, sqrt

import msgspec

# Stakes on the first two shifted Legendre polynomials of the p-value: higher or lower, further out or further in.
SHIFT = (-0.9, -0.5, -0.25, 0.25, 0.5, 0.9)
SPREAD = (-0.8, -0.4, 0.4, 0.8)
BETS = len(SHIFT) + len(SPREAD)
PACE = 50.0  # sessions in which half of the wealth wakes
LEAST = 100  # ranked sessions before the first bet
MOST = 2_000  # ranked sessions that are kept of each part of the week; later ones are ranked and not kept
NEWEST = 100  # sessions that an end of a drift is judged by
WELL_Z = 1.645  # |z| of the newest p-values under which a drift has ended, of either polynomial
MOST_EVIDENCE = 1e30  # it has decided long ago, and JSON knows no infinity


class Evidence(msgspec.Struct, kw_only=True):
    """One kind's test, mutable: what is needed to go on."""

    parts: dict[int, list[float]] = {}  # part of the week -> sorted numbers
    ranked: int = 0  # how many were kept
    bets: int = 0  # how many times wealth was staked since the test began, or began anew
    awake: list[float] = msgspec.field(default_factory=lambda: [0.0] * BETS)
    peak: float = 1.0  # the most that the wealth has been
    newest: list[float] = []  # p-values of the latest sessions after the reference

    @property
    def wealth(self) -> float:
        """The e-value now: 1 at first, and on average ever after while nothing changes."""
        return min(MOST_EVIDENCE, asleep(self.bets) + sum(self.awake))

    def take(self, value: float, part: int, chance: float, *, reference: bool, found: bool = False) -> float | None:
        """One session's number; the p-value, or None where nothing was there to rank it among.

        `chance`: a uniform number that breaks ties, from 0 to 1. `reference`: it belongs to what is compared with, so
        that nobody bets. `found`: a drift is on, so that it is ranked and not kept, and nobody bets.
        """
        pool = self.parts.setdefault(part, [])
        p = _p_value(pool, value, chance) if pool else None
        if not reference and p is not None:
            self.newest = [*self.newest[1 - NEWEST :], p]
            if not found and self.ranked >= LEAST:
                self._bet(p)
        if not found and len(pool) < MOST:
            insort(pool, value)
            self.ranked += 1
        return p

    def begin_anew(self) -> None:
        """Forget the wealth, not what is compared with."""
        self.bets, self.awake, self.peak, self.newest = 0, [0.0] * BETS, 1.0, []

    def looks_well(self) -> bool:
        """Whether the newest sessions rank among the others as any would."""
        n = len(self.newest)
        if n < NEWEST:
            return False
        shift, spread = sum(map(_shift, self.newest)) / n, sum(map(_spread, self.newest)) / n
        # Variances of the polynomials of a uniform number: 1/3 and 1/5.
        noise = 1.0 / n + 1.0 / max(1, self.ranked)
        return abs(shift) < WELL_Z * sqrt(noise / 3) and abs(spread) < WELL_Z * sqrt(noise / 5)

    def _bet(self, p: float) -> None:
        wakes = (asleep(self.bets) - asleep(self.bets + 1)) / BETS
        self.bets += 1
        first, second = _shift(p), _spread(p)
        odds = [1.0 + b * first for b in SHIFT] + [1.0 + b * second for b in SPREAD]
        self.awake = [min(MOST_EVIDENCE, (a + wakes) * odd) for a, odd in zip(self.awake, odds, strict=True)]
        self.peak = max(self.peak, self.wealth)


def asleep(bets: int) -> float:
    """Share of the first wealth that has not been staked yet: falls so slowly that much is left for a late drift."""
    return 1.0 / (1.0 + log1p(bets / PACE))


def part_of_week(at: float) -> int:
    """Which of eight parts of the week (UTC) a moment falls in: a quarter of a day, on a working day or not."""
    days, seconds = divmod(at, 86_400.0)
    weekend = (int(days) + 3) % 7 >= 5  # 1970-01-01 was a Thursday
    return int(seconds // 21_600.0) + 4 * weekend


def _p_value(pool: list[float], value: float, chance: float) -> float:
    """Share of the pool and the value itself that lie above, ties broken by `chance`: uniform, exactly."""
    at_most = bisect_right(pool, value)
    ties = at_most - bisect_left(pool, value) + 1
    return (len(pool) - at_most + chance * ties) / (len(pool) + 1)


def _shift(p: float) -> float:
    return 2.0 * p - 1.0


def _spread(p: float) -> float:
    return 6.0 * p * p - 6.0 * p + 1.0
