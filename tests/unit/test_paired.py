"""The paired comparison: its laws, and how often it errs in simulation."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pawl.evaluation.gate import gate
from pawl.evaluation.paired import clustered_mean, compare, sign_flip, verdict_of
from pawl.evaluation.report import Comparison, Interval, ItemResult
from pawl.fleet.spec import EvaluationSpec

Rows = list[tuple[str, float]]


def items(rows: list[tuple[str, float | None]]) -> list[ItemResult]:
    return [ItemResult(item=f"i{n}", source=s, score=v, conforms=True) for n, (s, v) in enumerate(rows)]


def comparison(
    before: list[tuple[str, float | None]], after: list[tuple[str, float | None]], **more: Any
) -> Comparison:
    given_: dict[str, Any] = {"margin": 0.05, "alpha": 0.05, "dataset": "d", "training_sources": set(), **more}
    return compare("a", ("old", items(before)), ("new", items(after)), **given_)


def test_sign_flip_is_exact_for_few_sources() -> None:
    rows: Rows = [("a", 0.5), ("a", 0.25), ("b", 0.5), ("c", -0.25), ("d", 1.0)]
    sums = [0.75, 0.5, -0.25, 1.0]
    totals = [sum(s * f for s, f in zip(sums, flips, strict=True)) for flips in itertools.product((1, -1), repeat=4)]
    above, below = sign_flip(rows)
    assert above == sum(t >= 2.0 for t in totals) / 16 and below == sum(t <= 2.0 for t in totals) / 16


def test_sampled_sign_flip_agrees_with_the_exact_one() -> None:
    rng = np.random.default_rng(1)
    values = rng.normal(0.3, 1, 12)
    exact, _ = sign_flip([(str(i), float(v)) for i, v in enumerate(values)])
    # A thirteenth source without a difference changes nothing but the method.
    sampled, _ = sign_flip([*((str(i), float(v)) for i, v in enumerate(values)), ("z", 0.0)])
    assert abs(exact - sampled) < 4 * math.sqrt(exact * (1 - exact) / 9999) + 1e-3


SCORES = st.sampled_from([0.0, 1 / 3, 2 / 3, 1.0])
ROWS = st.lists(st.tuples(st.sampled_from("abcdefg"), SCORES, SCORES), min_size=1, max_size=40)


@settings(max_examples=50, deadline=None)
@given(ROWS)
def test_swapping_the_sides_mirrors_the_p_values(rows: list[tuple[str, float, float]]) -> None:
    up: Rows = [(s, b - a) for s, a, b in rows]
    down: Rows = [(s, a - b) for s, a, b in rows]
    assert sign_flip(up) == pytest.approx(sign_flip(down)[::-1])


@settings(max_examples=50, deadline=None)
@given(ROWS, st.randoms())
def test_laws_of_a_comparison(rows: list[tuple[str, float, float]], rng: Any) -> None:
    made = comparison([(s, a) for s, a, _ in rows], [(s, b) for s, _, b in rows])
    assert made.pairs == len(rows) and made.invalid == 0
    assert made.difference.mean == pytest.approx(made.challenger.score.mean - made.champion.score.mean)
    assert made.difference.lower <= made.difference.mean + 1e-9 <= made.difference.upper + 2e-9
    if made.verdict == "better":
        assert made.difference.lower > 0 and made.p_better < 0.05
    if made.verdict == "worse":
        assert made.difference.upper < 0 and made.p_worse < 0.05
    # The order of the answers changes nothing, and the same evidence has the same digest.
    old, new = items([(s, a) for s, a, _ in rows]), items([(s, b) for s, _, b in rows])
    rng.shuffle(old)
    rng.shuffle(new)
    again = compare("a", ("old", old), ("new", new), margin=0.05, alpha=0.05, dataset="d", training_sources=set())
    assert again.digest() == made.digest()


def test_invalid_items_are_counted_never_zero() -> None:
    before: list[tuple[str, float | None]] = [("a", 1.0), ("b", None), ("c", 1.0), ("d", 1.0)]
    after: list[tuple[str, float | None]] = [("a", 1.0), ("b", 1.0), ("c", None)]
    made = comparison(before, after)
    assert (made.pairs, made.invalid) == (1, 3) and made.challenger.score.mean == 1.0


def test_sources_of_the_training_data_are_named() -> None:
    rows: list[tuple[str, float | None]] = [("a", 1.0), ("b", 1.0)]
    assert comparison(rows, rows, training_sources={"b", "z"}).contaminated == ("b",)


def test_too_little_is_no_verdict() -> None:
    assert comparison([], []).verdict == "not_enough_evidence"
    assert comparison([("a", 0.0)] * 50, [("a", 1.0)] * 50).verdict == "not_enough_evidence", "one source is one draw"


@pytest.mark.parametrize(
    ("bounds", "p_better", "p_worse", "verdict"),
    [
        ((0.01, 0.2), 0.01, 0.99, "better"),
        ((0.01, 0.2), 0.06, 0.94, "not_worse"),
        ((-0.04, 0.2), 0.01, 0.99, "not_worse"),
        ((-0.04, -0.01), 0.99, 0.01, "worse"),
        ((-0.2, 0.2), 0.5, 0.5, "not_enough_evidence"),
        ((-0.2, -0.01), 0.99, 0.06, "not_enough_evidence"),
        ((-0.05, 0.2), 0.5, 0.5, "not_enough_evidence"),
    ],
)
def test_verdicts(bounds: tuple[float, float], p_better: float, p_worse: float, verdict: str) -> None:
    interval = Interval(sum(bounds) / 2, *bounds)
    assert verdict_of(interval, p_better, p_worse, margin=0.05, alpha=0.05) == verdict


def simulate(rng: np.random.Generator, n: int, shift: float) -> Comparison:
    """n items of about n/2 sources; both models get thirds, correlated within item and source; `shift` on average."""
    source = rng.integers(0, n // 2, n)
    level = 0.55 + 0.15 * rng.normal(size=n // 2)[source] + 0.2 * rng.normal(size=n)
    own = 0.1 * rng.normal(size=(2, n // 2))[:, source] + 0.15 * rng.normal(size=(2, n))
    # Dithered rounding to thirds: unbiased, so that the mean difference is the shift (edges are clipped alike).
    before = np.clip(np.floor(3 * (level + own[0]) + rng.random(n)), 0, 3) / 3
    if shift == 0:
        after = np.clip(np.floor(3 * (level + own[1]) + rng.random(n)), 0, 3) / 3
    else:
        # A third is lost with such a probability that the mean falls by the shift, whatever was clipped.
        after = np.clip(np.floor(3 * (level + own[1]) + rng.random(n)), 0, 3) / 3
        can = after > 0
        after = after - can * (rng.random(n) < -shift * 3 / max(can.mean(), 1e-9)) / 3
    names = [f"s{s}" for s in source]
    return comparison(list(zip(names, before.tolist(), strict=True)), list(zip(names, after.tolist(), strict=True)))


def at_most(errors: int, runs: int, rate: float) -> bool:
    return errors / runs <= rate + 3 * math.sqrt(rate * (1 - rate) / runs)


@pytest.mark.parametrize("n", [50, 100])
def test_equal_models_are_rarely_called_different(n: int) -> None:
    rng, runs = np.random.default_rng(n), 300
    verdicts = [simulate(rng, n, 0.0).verdict for _ in range(runs)]
    assert at_most(verdicts.count("better"), runs, 0.05)
    assert at_most(verdicts.count("worse"), runs, 0.05)


@pytest.mark.parametrize("n", [50, 100])
def test_a_loss_of_twice_the_margin_is_hardly_ever_promoted(n: int) -> None:
    rng, runs = np.random.default_rng(n + 1), 300
    spec = EvaluationSpec(items=n, min_score=0.0)
    made = [simulate(rng, n, -0.10) for _ in range(runs)]
    assert abs(float(np.mean([c.difference.mean for c in made])) + 0.10) < 0.01, "the simulation does what it says"
    assert at_most(sum(gate(c, spec, None).decision == "promote" for c in made), runs, 0.01)


def test_a_large_gain_is_seen() -> None:
    rng = np.random.default_rng(9)
    made = [simulate(rng, 100, -0.25) for _ in range(40)]
    assert sum(c.verdict == "worse" for c in made) >= 36


def test_intervals_cover_the_mean() -> None:
    rng, runs, hits = np.random.default_rng(3), 300, 0
    for _ in range(runs):
        source = rng.integers(0, 25, 60)
        values = 0.3 * rng.normal(size=25)[source] + rng.normal(size=60)
        got = clustered_mean([(str(s), float(v)) for s, v in zip(source, values, strict=True)], 0.05)
        hits += got.lower <= 0 <= got.upper
    assert hits / runs >= 0.95 - 4 * math.sqrt(0.95 * 0.05 / runs)
