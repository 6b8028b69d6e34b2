"""The sequential tests: laws, a case worked by hand, and their error probabilities by simulation."""

from __future__ import annotations

import random
from math import log, prod, sqrt

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pawl.rollout.sequential import (
    BETS,
    TRUNCATION,
    confidence_sequence,
    excess_path,
    excesses,
    harm,
    harm_path,
    lower_bound,
)

ALPHA = 0.05
differences = st.lists(st.floats(-1, 1), max_size=40)


def three_errors(p: float, runs: int) -> float:
    return 3 * sqrt(p * (1 - p) / runs)


@given(differences)
def test_the_e_value_is_the_mean_wealth_of_the_fixed_bets(ds: list[float]) -> None:
    expected = sum(prod(1 - bet * d for d in ds) for bet in BETS) / len(BETS)
    assert harm(ds)[0] == pytest.approx(expected, rel=1e-9)


@given(differences, differences)
def test_a_maximum_once_reached_stays(first: list[float], more: list[float]) -> None:
    assert harm(first + more)[1] >= harm(first)[1] >= 1.0
    assert harm(first)[1] == pytest.approx(max([1.0, *harm_path(first)]))


@given(differences, st.randoms(use_true_random=False))
def test_the_order_does_not_change_the_final_value(ds: list[float], rng: random.Random) -> None:
    shuffled = ds[:]
    rng.shuffle(shuffled)
    assert harm(shuffled)[0] == pytest.approx(harm(ds)[0], rel=1e-9)


def test_a_bet_is_fair_where_the_mean_is_zero() -> None:
    # One step from any state: the two equally likely outcomes +x and -x average to the wealth before.
    before = harm([-0.3, 0.2])[0]
    assert (harm([-0.3, 0.2, 0.7])[0] + harm([-0.3, 0.2, -0.7])[0]) / 2 == pytest.approx(before)


def test_differences_outside_the_range_are_refused() -> None:
    with pytest.raises(ValueError, match=r"1\.5"):
        harm([0.0, 1.5])


def test_a_very_long_losing_run_stays_finite() -> None:
    now, largest = harm([-1.0] * 20_000)
    assert now == largest < float("inf")


def _pairs(rng: random.Random, n: int) -> list[float]:
    """Differences of two equal, skewed, discrete arms: the hypothesis at its boundary."""
    return [rng.choice((0.0, 0.0, 0.4, 1.0)) - rng.choice((0.0, 0.0, 0.4, 1.0)) for _ in range(n)]


def test_false_alarms_with_a_look_after_every_observation() -> None:
    rng, runs = random.Random(1), 2000
    alarms = sum(harm(_pairs(rng, 100))[1] >= 1 / ALPHA for _ in range(runs))
    assert alarms / runs <= ALPHA + three_errors(ALPHA, runs)


def test_a_much_worse_challenger_is_seen_soon() -> None:
    rng, needed = random.Random(2), []
    for _ in range(200):
        path = harm_path([-1.0 if rng.random() < 0.6 else 0.0 for _ in range(60)])
        needed.append(next((n for n, e in enumerate(path, 1) if e >= 1 / ALPHA), 61))
    assert sorted(needed)[100] <= 12
    assert sorted(needed)[190] <= 25


def test_hedged_sequence_against_one_observation_by_hand() -> None:
    # d = -1, so x = 0. The first bet is sqrt(2 log 4 / (1/4 * 1 * log 2)) = 4 at alpha = 1/2, truncated at
    # c / (1 - m), which binds below m = 7/8. A mean m is ruled out by 1 + c m / (1 - m) >= 2/alpha = 4, that is by
    # m / (1 - m) >= 6, so the bound is m = 6/7, or 5/7 for d.
    assert TRUNCATION == 0.5
    assert confidence_sequence([-1.0], 0.5) == pytest.approx((-1.0, 5 / 7), abs=1e-6)
    # At alpha = 1/8 the bet is sqrt(2 log 16 / (log(2)/4)) = sqrt(32) and m / (1 - m) >= 30 lies where nothing is
    # truncated any more (m > 1 - 1/(2 sqrt(32))): 1 + sqrt(32) m = 16 has no solution below 1.
    assert confidence_sequence([-1.0], 0.125) == pytest.approx((-1.0, 1.0), abs=1e-6)


def test_hedged_sequence_against_two_observations_on_a_grid() -> None:
    """The capital written out from the paper's formulas, scanned over a grid of means."""
    alpha, xs = 0.2, [0.1, 0.3]
    mu1, first_var = (0.5 + 0.1) / 2, 0.25
    second_var = (0.25 + (0.1 - mu1) ** 2) / 2
    bets = [sqrt(2 * log(2 / alpha) / (v * t * log(t + 1))) for t, v in ((1, first_var), (2, second_var))]

    def kept(m: float) -> bool:
        up = down = 1.0
        for x, bet in zip(xs, bets, strict=True):
            up *= 1 + min(bet, TRUNCATION / m) * (x - m)
            down *= 1 - min(bet, TRUNCATION / (1 - m)) * (x - m)
            if max(up, down) / 2 >= 1 / alpha:
                return False
        return True

    inside = [m for m in (i / 20_000 for i in range(1, 20_000)) if kept(m)]
    lower, upper = confidence_sequence([2 * x - 1 for x in xs], alpha)
    assert lower == pytest.approx(2 * min(inside) - 1, abs=3e-4)
    assert upper == pytest.approx(2 * max(inside) - 1, abs=3e-4)


def test_nothing_seen_nothing_said() -> None:
    assert confidence_sequence([], ALPHA) == (-1.0, 1.0)
    assert lower_bound([], ALPHA) == 0.0


@given(st.lists(st.floats(-1, 1), max_size=25), st.floats(-1, 1))
def test_bounds_only_tighten(ds: list[float], d: float) -> None:
    before, after = confidence_sequence(ds, ALPHA), confidence_sequence([*ds, d], ALPHA)
    assert after[0] >= before[0] and after[1] <= before[1]


@given(st.lists(st.floats(-1, 1), max_size=25))
def test_bounds_mirror(ds: list[float]) -> None:
    lower, upper = confidence_sequence(ds, ALPHA)
    mirrored = confidence_sequence([-d for d in ds], ALPHA)
    assert mirrored == pytest.approx((-upper, -lower), abs=1e-5)


def test_the_sequence_covers_at_all_times_at_once() -> None:
    # Its bounds only tighten, so the last ones miss the mean exactly where some earlier look did.
    rng, runs, missed = random.Random(3), 400, 0
    for _ in range(runs):
        lower, upper = confidence_sequence([1.0 if rng.random() < 0.15 else -0.5 for _ in range(150)], ALPHA)
        missed += not lower <= 0.15 - 0.5 * 0.85 <= upper
    assert missed / runs <= ALPHA + three_errors(ALPHA, runs)


def test_the_sequence_narrows() -> None:
    rng = random.Random(4)
    ds = [rng.choice((-0.2, 0.0, 0.2)) for _ in range(400)]
    lower, upper = confidence_sequence(ds, ALPHA)
    assert upper - lower < 0.15


def test_the_one_sided_bound_holds_and_gets_near() -> None:
    rng, runs, above, found = random.Random(5), 400, 0, []
    for _ in range(runs):
        found.append(lower_bound([1.0 if rng.random() < 0.6 else 0.0 for _ in range(150)], ALPHA))
        above += found[-1] > 0.6
    assert above / runs <= ALPHA + three_errors(ALPHA, runs)
    assert sorted(found)[runs // 2] > 0.4


def excess_rate(failures: list[bool], limit: float) -> tuple[float, float]:
    """The e-value now, and the largest so far (1 before the first)."""
    path = [1.0, *excess_path(failures, limit)]
    return path[-1], max(path)


def test_error_rate_at_its_limit_is_rarely_called_above_it() -> None:
    rng, runs = random.Random(6), 1000
    alarms = sum(excess_rate([rng.random() < 0.1 for _ in range(200)], 0.1)[1] >= 1 / ALPHA for _ in range(runs))
    assert alarms / runs <= ALPHA + three_errors(ALPHA, runs)


def test_an_arm_that_always_fails_is_called_within_a_few_calls() -> None:
    assert excess_rate([True] * 2, 0.1)[1] < 100 <= excess_rate([True] * 4, 0.1)[1]
    assert excess_rate([True] * 50, 1.0) == (1.0, 1.0)
    now, largest = excess_rate([False] * 50, 0.1)
    assert now < largest == 1.0
    now, largest = excess_rate([True] * 4 + [False] * 50, 0.1)
    assert now < 1.0 and largest == excess_rate([True] * 4, 0.1)[0]


def test_what_went_well_before_hides_an_outage_for_a_few_calls_only() -> None:
    for good, needed in ((0, 4), (20, 6), (300, 9), (2000, 11), (20_000, 13)):
        calls = [False] * good + [True] * needed
        assert excess_rate(calls[:-1], 0.1)[1] < 100 <= excess_rate(calls, 0.1)[1]
        (found,) = excesses(calls + [False] * 40, 0.1, 100)
        assert (found.first, found.last, found.over) == (good, good + needed - 1, True)
    assert excesses([True] * 2000, 0.1, 100)[0][1:] == (1999, False)  # no overflow
    twice = [True] * 9 + [False] * 200 + [True] * 12
    assert [e.over for e in excesses(twice, 0.1, 100)] == [True, False] and excesses(twice, 1.0, 100) == []
