"""The test for drift: its p-values, its promise over endless looks, and what it finds."""

from __future__ import annotations

import random
import statistics
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pawl.monitoring import drift_betting
from pawl.monitoring.drift_betting import BETS, NEWEST, SHIFT, SPREAD, Evidence, asleep, part_of_week

THRESHOLD = 20.0
Draw = Callable[[random.Random, bool], float]


def played(seed: int, sessions: int, draw: Draw, *, reference: int = 300, change: int | None = None) -> list[float]:
    """Wealth after each session."""
    rng, test, wealth = random.Random(seed), Evidence(), []
    for n in range(sessions):
        value = draw(rng, change is not None and n >= change)
        test.take(value, n % 4, rng.random(), reference=n < reference)
        wealth.append(test.wealth)
    return wealth


def normal(rng: random.Random, changed: bool) -> float:
    return rng.gauss(1.0 if changed else 0.0, 1.0)


def rare(rng: random.Random, changed: bool) -> float:
    return float(rng.random() < (0.3 if changed else 0.02))


def test_p_values_are_uniform_and_independent_whatever_the_numbers() -> None:
    for draw in (normal, rare):
        rng, test = random.Random(3), Evidence()
        found = [test.take(draw(rng, False), n % 8, rng.random(), reference=True) for n in range(20_000)]
        p = [x for x in found if x is not None]
        assert len(p) == 20_000 - 8, "the first of each part has nothing to be ranked among"
        tenths = [sum(k / 10 <= x < (k + 1) / 10 for x in p) / len(p) for k in range(10)]
        assert max(abs(t - 0.1) for t in tenths) < 0.01
        assert abs(statistics.correlation(p[:-1], p[1:])) < 0.03


@given(st.integers(0, 4000), st.integers(1, 3000))
def test_wealth_wakes_slowly_and_is_never_made(bets: int, more: int) -> None:
    assert 1.0 >= asleep(bets) > asleep(bets + more) > 0.1


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.integers(0, 200))
def test_bets_are_fair(seed: int, bets: int) -> None:
    rng = random.Random(seed)
    awake = [rng.random() for _ in range(BETS)]
    before = asleep(bets) + sum(awake)
    after = []
    for k in range(2_000):  # all p-values, evenly
        test = Evidence(awake=list(awake), bets=bets)
        test._bet((k + 0.5) / 2_000)
        after.append(test.wealth)
    assert statistics.fmean(after) == pytest.approx(before, rel=1e-4)
    assert all(1 - abs(b) > 0 for b in SHIFT) and all(1 + b > 0 and 1 - b / 2 > 0 for b in SPREAD)


def test_of_stationary_traffic_looked_at_after_each_session_few_alarm() -> None:
    runs = 150
    for draw in (normal, rare):
        false = sum(max(played(seed, 1_500, draw)) >= THRESHOLD for seed in range(runs))
        assert false / runs <= 1 / THRESHOLD + 0.03


@pytest.mark.parametrize("draw", [normal, rare])
def test_a_change_is_found_soon_though_it_comes_late(draw: Draw) -> None:
    delays = []
    for seed in range(10):
        wealth = played(seed, 3_000, draw, change=2_500)
        after = [n for n, w in enumerate(wealth[2_500:]) if w >= THRESHOLD]
        delays.append(after[0] if after else 500)
    assert statistics.median(delays) < 120


def test_more_spread_with_the_same_mean_is_found() -> None:
    wealth = played(1, 1_500, lambda rng, changed: rng.gauss(0.0, 3.0 if changed else 1.0), change=1_200)
    assert max(wealth[:1_200]) < THRESHOLD <= max(wealth)


def test_nights_and_weekends_that_differ_from_days_are_no_drift() -> None:
    rng, test = random.Random(5), Evidence()
    for n in range(28 * 96):  # a session each quarter of an hour, four weeks
        at = n * 900.0
        value = rng.gauss(4.0 * (part_of_week(at) % 4 == 1) - 3.0 * (part_of_week(at) >= 4), 1.0)
        test.take(value, part_of_week(at), rng.random(), reference=n < 7 * 96)
    assert test.peak < THRESHOLD
    blind = Evidence()
    for n in range(28 * 96):
        at = n * 900.0
        value = rng.gauss(4.0 * (part_of_week(at) % 4 == 1) - 3.0 * (part_of_week(at) >= 4), 1.0)
        blind.take(value, 0, rng.random(), reference=n < 7 * 96)
    assert blind.peak > THRESHOLD, "without the parts of the week this would be a false alarm"


def test_parts_of_the_week() -> None:
    thursday = 0.0  # 1970-01-01
    assert [part_of_week(thursday + h * 3600) for h in (0, 5.9, 6, 12, 18, 23.9)] == [0, 0, 1, 2, 3, 3]
    assert [part_of_week(thursday + d * 86_400) for d in range(7)] == [0, 0, 4, 4, 0, 0, 0]


def test_memory_is_bounded_and_late_sessions_are_ranked_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drift_betting, "MOST", 50)
    rng, test = random.Random(1), Evidence()
    for _ in range(500):
        assert len(test.parts.get(0, [])) <= 50
        test.take(rng.random(), 0, rng.random(), reference=True)
    assert test.ranked == 50
    assert test.take(2.0, 0, 0.5, reference=True) == pytest.approx(0.5 / 51)


def test_a_drift_that_was_found_is_not_learnt_and_ends_when_sessions_are_as_before() -> None:
    rng, test = random.Random(2), Evidence()
    for _ in range(400):
        test.take(rng.gauss(0, 1), 0, rng.random(), reference=True)
    for _ in range(300):
        test.take(rng.gauss(5, 1), 0, rng.random(), reference=False, found=True)
    assert test.ranked == 400 and test.bets == 0 and not test.looks_well()
    for _ in range(NEWEST):
        test.take(rng.gauss(0, 1), 0, rng.random(), reference=False, found=True)
    assert test.looks_well()
    test.begin_anew()
    assert test.wealth == 1.0 and test.ranked == 400
