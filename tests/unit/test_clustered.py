"""The statistics of paired comparisons: against scipy, against published tables, and their laws."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from pawl.evaluation.clustered import (
    clustered_mean,
    clusters,
    difference_bounds,
    holm,
    mcnemar,
    ratio_of_means,
    sign_flip,
)
from pawl.evaluation.resampling import bca_bounds, standard_errors, t_bounds

Rows = list[tuple[str, float]]
SCORES = st.sampled_from([0.0, 1 / 3, 2 / 3, 1.0])
ROWS = st.lists(st.tuples(st.sampled_from("abcdefg"), SCORES, SCORES), min_size=1, max_size=40)


def alone(values: Any) -> Rows:
    """Each value a source of its own."""
    return [(f"s{n:04}", float(v)) for n, v in enumerate(values)]


def test_mcnemar_is_the_exact_binomial_test() -> None:
    rng = np.random.default_rng(1)
    for _ in range(20):
        old, new = rng.random(60) < 0.5, rng.random(60) < 0.6
        found = mcnemar([bool(x) for x in old], [bool(x) for x in new])
        n = found.gained + found.lost
        assert found.p_lost == pytest.approx(stats.binomtest(found.lost, n, alternative="greater").pvalue)
        assert found.p_gained == pytest.approx(stats.binomtest(found.gained, n, alternative="greater").pvalue)
        assert (found.both, found.neither) == (int((old & new).sum()), int((~old & ~new).sum()))
    assert mcnemar([True], [True]).p_lost == 1.0


def test_agrestis_table_of_approval_ratings() -> None:
    """Agresti, Categorical Data Analysis, 2nd edition (2002), table 10.1 (1st edition, 1990, p. 350): 1,600 people
    asked twice; 794 approved both times, 150 only the first, 86 only the second, 570 never. The counts are those of the
    example on R's manual page of `mcnemar.test`, which names the book. Section 10.1 gives a difference of -0.04 with
    a standard error of 0.0095, a 95 % interval of (-0.06, -0.02), and McNemar's z squared as 17.36."""
    first = [True] * 944 + [False] * 656
    second = [True] * 794 + [False] * 150 + [True] * 86 + [False] * 570
    found = mcnemar(first, second)
    assert (found.both, found.lost, found.gained, found.neither) == (794, 150, 86, 570)
    assert (found.gained - found.lost) ** 2 / (found.gained + found.lost) == pytest.approx(17.36, abs=0.005)
    assert 2 * found.p_lost == pytest.approx(stats.binomtest(150, 236).pvalue) and 2 * found.p_lost < 1e-4
    rows = alone(float(b) - float(a) for a, b in zip(first, second, strict=True))
    assert standard_errors(*clusters(rows))[0] == pytest.approx(0.0095, abs=0.0001)
    interval = clustered_mean(rows, 0.05)
    assert [round(v, 2) for v in (interval.mean, interval.lower, interval.upper)] == [-0.04, -0.06, -0.02]


MICE = [94, 197, 16, 38, 99, 141, 23]


def test_efron_and_tibshiranis_mice() -> None:
    """Efron and Tibshirani, An Introduction to the Bootstrap (1993), table 2.1: survival of the seven treated mice in
    days, `mouse.t` of the book's R package bootstrap; their mean is 86.86, its standard error 25.24."""
    sums, counts = clusters(alone(MICE))
    assert float(sums.sum() / counts.sum()) == pytest.approx(86.86, abs=0.005)
    assert standard_errors(sums, counts)[0] == pytest.approx(25.24, abs=0.005)


@pytest.mark.parametrize(
    ("both", "lost", "gained", "neither", "p_value"),
    [
        (794, 150, 86, 570, 3.7159361395713866e-05),
        (20, 9, 3, 8, 0.14599609375),
        (5, 1, 11, 40, 0.00634765625),
    ],
)
def test_mcnemar_is_that_of_statsmodels(both: int, lost: int, gained: int, neither: int, p_value: float) -> None:
    """statsmodels 0.15.0, `stats.contingency_tables.mcnemar(table, exact=True).pvalue`, which is two-sided."""
    old = [True] * (both + lost) + [False] * (gained + neither)
    new = [True] * both + [False] * lost + [True] * gained + [False] * neither
    found = mcnemar(old, new)
    assert 2 * min(found.p_lost, found.p_gained) == pytest.approx(p_value, rel=1e-12)


def test_intervals_are_those_of_statsmodels_or_wider() -> None:
    """statsmodels 0.15.0. Mice: `DescrStatsW(mice).tconfint_mean(0.05)`. Sources: an intercept alone, `OLS(y, 1).fit(
    cov_type="cluster", use_t=True)`, its `bse` and `conf_int(0.05)`. Ours go further out on a longer tail, only there.
    """
    low, high = t_bounds(*clusters(alone(MICE)), (0.025, 0.975))[0]
    assert low == pytest.approx(25.108124449272267, rel=1e-9) and high > 148.60616126501344
    halves = [0, 1, 1, -1, 0, 0, 1, 1, 1, 1, 0, 1, 0, 0, -1, 0, 1, 0, 1, 1]
    even = [("abcde"[n // 4], v / 2) for n, v in enumerate(halves)]
    assert standard_errors(*clusters(even))[0] == pytest.approx(0.09354143466934851, rel=1e-9)
    low, high = t_bounds(*clusters(even), (0.025, 0.975))[0]
    assert low <= -0.059712658420891906 + 1e-9 and high == pytest.approx(0.4597126584208918, rel=1e-9)
    # Sources of unequal size: the jackknife is not the sandwich, and both are estimates of the same.
    thirds = [0, 1, 1, -1, 0, 0, 1, 2, 3, 2, 0, 0, -1, 0, 1, 0, 1, 1, 2, 0, -2]
    uneven = [(s, v / 3) for s, v in zip("aaabbbbbccddddeffffff", thirds, strict=True)]
    assert standard_errors(*clusters(uneven))[0] == pytest.approx(0.0908539936587556, rel=0.03)
    found = clustered_mean(uneven, 0.05)
    assert found.mean == pytest.approx(0.17460317460317454)
    assert found.lower == pytest.approx(-0.05894445, abs=0.01) and found.upper > 0.4081508


def test_holm_is_that_of_statsmodels() -> None:
    """statsmodels 0.15.0, `multipletests(p, method="holm")[1]`."""
    assert holm([0.01, 0.04, 0.03, 0.005, 0.2, 0.04]) == pytest.approx([0.05, 0.12, 0.12, 0.03, 0.2, 0.12])


def test_bca_is_scipys_where_each_source_has_one_item() -> None:
    rng = np.random.default_rng(4)
    for values in (rng.exponential(size=40), rng.normal(size=25), -rng.gamma(0.5, size=60)):
        expected = stats.bootstrap(
            (values,), np.mean, method="BCa", confidence_level=0.9, n_resamples=40_000, rng=np.random.default_rng(5)
        ).confidence_interval
        low, high = bca_bounds(*clusters(alone(values)), (0.05, 0.95))[0]
        wide = expected.high - expected.low
        assert abs(low - expected.low) < 0.03 * wide and abs(high - expected.high) < 0.03 * wide


def test_bca_moves_towards_the_longer_tail_where_the_percentile_interval_does_not() -> None:
    values = -np.random.default_rng(2).gamma(0.3, size=40)  # rare large losses
    low, middle, high = bca_bounds(*clusters(alone(values)), (0.025, 0.5, 0.975))[0]
    assert middle - low > 1.2 * (high - middle)


def test_students_bound_without_skew_is_the_textbooks() -> None:
    values = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]
    low, high = t_bounds(*clusters(alone(values)), (0.025, 0.975))[0]
    expected = stats.t.interval(0.95, 5, loc=3.5, scale=np.std(values, ddof=1) / math.sqrt(6))
    assert (low, high) == pytest.approx(expected)


def test_the_flips_are_scipys_permutation_test() -> None:
    rng = np.random.default_rng(3)
    old, new = rng.integers(0, 4, 10) / 3, rng.integers(0, 4, 10) / 3

    def change(a: Any, b: Any, axis: int) -> Any:
        return np.sum(b - a, axis=axis)

    for side, tail in ((0, "greater"), (1, "less")):
        expected = stats.permutation_test(
            (old, new), change, permutation_type="samples", alternative=tail, n_resamples=np.inf, vectorized=True
        ).pvalue
        assert sign_flip(alone(new - old))[side] == pytest.approx(expected)


def test_sign_flip_is_exact_for_few_sources() -> None:
    rows: Rows = [("a", 0.5), ("a", 0.25), ("b", 0.5), ("c", -0.25), ("d", 1.0)]
    sums = [0.75, 0.5, -0.25, 1.0]
    totals = [sum(s * f for s, f in zip(sums, flips, strict=True)) for flips in itertools.product((1, -1), repeat=4)]
    above, below = sign_flip(rows)
    assert above == sum(t >= 2.0 for t in totals) / 16 and below == sum(t <= 2.0 for t in totals) / 16


def test_for_binary_items_of_their_own_the_flips_are_mcnemars_test() -> None:
    old, new = [True] * 9 + [False] * 20, [False] * 8 + [True] + [True] * 3 + [False] * 17
    found = mcnemar(old, new)
    better, worse = sign_flip(alone(float(b) - float(a) for a, b in zip(old, new, strict=True)))
    assert (found.p_gained, found.p_lost) == pytest.approx((better, worse))


def test_sampled_sign_flip_agrees_with_the_exact_one() -> None:
    values = np.random.default_rng(1).normal(0.3, 1, 14)
    flips = 1 - 2 * ((np.arange(2**14)[:, None] >> np.arange(14)) & 1)
    exact = float((flips @ values >= values.sum() - 1e-9).mean())
    sampled, _ = sign_flip(alone(values))
    assert abs(exact - sampled) < 4 * math.sqrt(exact * (1 - exact) / 9999) + 2e-4


@settings(max_examples=50, deadline=None)
@given(ROWS, st.integers(0, 30))
def test_sources_without_a_difference_change_no_p_value(rows: list[tuple[str, float, float]], more: int) -> None:
    changed: Rows = [(s, b - a) for s, a, b in rows]
    assert sign_flip([*changed, *((f"equal{n}", 0.0) for n in range(more))]) == sign_flip(changed)
    many = alone(np.random.default_rng(len(rows)).normal(size=20))
    assert sign_flip([*many, *((f"equal{n}", 0.0) for n in range(more))]) == sign_flip(many)


@settings(max_examples=50, deadline=None)
@given(ROWS)
def test_swapping_the_sides_mirrors_tests_and_bounds(rows: list[tuple[str, float, float]]) -> None:
    up: Rows = [(s, b - a) for s, a, b in rows]
    down: Rows = [(s, a - b) for s, a, b in rows]
    assert sign_flip(up) == pytest.approx(sign_flip(down)[::-1])
    one, other = difference_bounds(up, 0.05), difference_bounds(down, 0.05)
    assert (one.lower, one.upper) == pytest.approx((-other.upper, -other.lower))
    assert one.surely <= one.lower + 1e-9


def test_holm_by_hand() -> None:
    # Ranked 0.005, 0.01, 0.03, 0.04: times 4, 3, 2, 1 is 0.02, 0.03, 0.06, 0.04, and never below the one before.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.9]) == [1.0, 1.0] and holm([]) == []


@given(st.lists(st.floats(0, 1), max_size=12))
def test_holm_is_between_the_raw_and_bonferronis(p: list[float]) -> None:
    for raw, adjusted in zip(p, holm(p), strict=True):
        assert raw <= adjusted <= min(1.0, len(p) * raw) + 1e-12


def test_a_ratio_of_means_knows_that_the_items_are_the_same() -> None:
    rng = np.random.default_rng(8)
    level = rng.random(60)
    cloud = [(f"s{n % 20}", float(v)) for n, v in enumerate(0.4 + 0.6 * level)]
    ours = [(s, 0.95 * v) for s, v in cloud]
    found = ratio_of_means(ours, cloud, 0.05)
    assert found is not None and found.mean == pytest.approx(0.95) and found.upper - found.lower < 1e-9
    noisy = [(s, v + float(rng.normal(0, 0.1))) for s, v in ours]
    found = ratio_of_means(noisy, cloud, 0.05)
    assert found is not None and found.lower < 0.95 < found.upper and found.upper - found.lower < 0.15
    assert ratio_of_means(ours, [(s, 0.0) for s, _ in cloud], 0.05) is None


def test_intervals_cover_the_mean() -> None:
    rng, runs, hits = np.random.default_rng(3), 300, 0
    for _ in range(runs):
        source = rng.integers(0, 25, 60)
        values = 0.3 * rng.normal(size=25)[source] + rng.normal(size=60)
        got = clustered_mean([(str(s), float(v)) for s, v in zip(source, values, strict=True)], 0.05)
        hits += got.lower <= 0 <= got.upper
    assert hits / runs >= 0.95 - 3 * math.sqrt(0.95 * 0.05 / runs)


def test_one_source_says_nothing_and_nothing_seen_in_few_items_is_not_nothing() -> None:
    assert clustered_mean([("a", 0.5)] * 9, 0.05).lower == float("-inf")
    assert difference_bounds([("a", 0.5)] * 9, 0.05) == (-1.0, 1.0, -1.0)
    few, many = (difference_bounds(alone([0.0] * n), 0.05) for n in (20, 200))
    assert few.lower < -0.1 < -0.02 < many.lower < 0 < many.upper
