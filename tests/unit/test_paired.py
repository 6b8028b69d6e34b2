"""The paired comparison: its laws, and how often verdict and gate err in simulation."""

from __future__ import annotations

import math
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.gate_calibration import decided
from benchmarks.gate_worlds import Runs, World, simulate
from pawl.evaluation.clustered import Bounds
from pawl.evaluation.gate import gate
from pawl.evaluation.paired import compare, verdict_of
from pawl.evaluation.report import Comparison, ItemResult, Pattern
from pawl.fleet.spec import EvaluationSpec

ScoredRows = list[tuple[str, float | None]]


def items(rows: ScoredRows) -> list[ItemResult]:
    return [ItemResult(item=f"i{n}", source=s, score=v, conforms=True) for n, (s, v) in enumerate(rows)]


def comparison(before: ScoredRows, after: ScoredRows, **more: Any) -> Comparison:
    given_: dict[str, Any] = {"margin": 0.05, "alpha": 0.05, "dataset": "d", "training_sources": set(), **more}
    return compare("a", ("old", items(before)), ("new", items(after)), **given_)


SCORES = st.sampled_from([0.0, 1 / 3, 2 / 3, 1.0])
ROWS = st.lists(st.tuples(st.sampled_from("abcdefg"), SCORES, SCORES), min_size=1, max_size=40)


@settings(max_examples=40, deadline=None)
@given(ROWS, st.randoms())
def test_laws_of_a_comparison(rows: list[tuple[str, float, float]], rng: Any) -> None:
    made = comparison([(s, a) for s, a, _ in rows], [(s, b) for s, _, b in rows])
    assert made.pairs == len(rows) and made.invalid == 0
    assert made.difference.mean == pytest.approx(made.challenger.score.mean - made.champion.score.mean)
    assert made.difference.lower <= made.difference.mean + 1e-9 <= made.difference.upper + 2e-9
    assert made.difference.lower <= -made.loss_at_most + 1e-9 and made.loss_at_most <= made.loss_surely_at_most + 1e-9
    if made.verdict == "better":
        assert made.loss_at_most < 0 and made.p_better < 0.05
    if made.verdict == "worse":
        assert made.difference.mean < 0 and made.p_worse < 0.05
    # The order of the answers changes nothing, and the same evidence has the same digest.
    old, new = items([(s, a) for s, a, _ in rows]), items([(s, b) for s, _, b in rows])
    rng.shuffle(old)
    rng.shuffle(new)
    again = compare("a", ("old", old), ("new", new), margin=0.05, alpha=0.05, dataset="d", training_sources=set())
    assert again.digest() == made.digest()
    # What a person approves survives the disk, with the same digest.
    kept = msgspec.json.decode(msgspec.json.encode(made), type=Comparison)
    assert kept == made and kept.digest() == made.digest()


@settings(max_examples=40, deadline=None)
@given(ROWS)
def test_swapping_the_models_mirrors_the_verdict(rows: list[tuple[str, float, float]]) -> None:
    one = comparison([(s, a) for s, a, _ in rows], [(s, b) for s, _, b in rows])
    other = comparison([(s, b) for s, _, b in rows], [(s, a) for s, a, _ in rows])
    assert (one.verdict == "better") == (other.verdict == "worse")
    assert (one.verdict == "worse") == (other.verdict == "better")
    for mine, theirs in zip(one.slices, other.slices, strict=True):
        assert (mine.name, mine.p_better) == (theirs.name, theirs.p_worse)


def test_invalid_items_are_counted_never_zero() -> None:
    before: ScoredRows = [("a", 1.0), ("b", None), ("c", 1.0), ("d", 1.0)]
    after: ScoredRows = [("a", 1.0), ("b", 1.0), ("c", None)]
    made = comparison(before, after)
    assert (made.pairs, made.invalid) == (1, 3) and made.challenger.score.mean == 1.0


def test_sources_of_the_training_data_are_named() -> None:
    rows: ScoredRows = [("a", 1.0), ("b", 1.0)]
    assert comparison(rows, rows, training_sources={"b", "z"}).contaminated == ("b",)


def test_too_little_is_no_verdict_and_can_be_kept() -> None:
    for made in (comparison([], []), comparison([("a", 0.0)] * 50, [("a", 1.0)] * 50)):
        assert made.verdict == "not_enough_evidence", "one source is one draw"
        assert msgspec.json.decode(msgspec.json.encode(made), type=Comparison) == made


def test_binary_scores_bring_mcnemars_test_and_others_do_not() -> None:
    before: ScoredRows = [(f"s{n}", float(n < 5)) for n in range(20)]
    after: ScoredRows = [(f"s{n}", float(n >= 4)) for n in range(20)]
    found = comparison(before, after).outcomes
    assert found is not None and (found.both, found.gained, found.lost, found.neither) == (1, 15, 4, 0)
    assert comparison([("a", 0.5), ("b", 1.0)], [("a", 1.0), ("b", 1.0)]).outcomes is None


@pytest.mark.parametrize(
    ("bounds", "p_better", "p_worse", "verdict"),
    [
        ((0.01, 0.2), 0.01, 0.99, "better"),
        ((0.01, 0.2), 0.06, 0.94, "not_worse"),
        ((-0.04, 0.2), 0.01, 0.99, "not_worse"),
        ((-0.04, -0.01), 0.99, 0.01, "worse"),
        ((-0.04, 0.01), 0.99, 0.01, "not_enough_evidence"),  # it may be a loss: never called harmless
        ((-0.2, 0.2), 0.5, 0.5, "not_enough_evidence"),
        ((-0.2, -0.01), 0.99, 0.06, "not_enough_evidence"),
        ((-0.05, 0.2), 0.5, 0.5, "not_enough_evidence"),
    ],
)
def test_verdicts(bounds: tuple[float, float], p_better: float, p_worse: float, verdict: str) -> None:
    assert verdict_of(Bounds(*bounds, -0.3), p_better, p_worse, margin=0.05, alpha=0.05) == verdict


# -- how often it errs: the same worlds as benchmarks/gate_calibration.py, which goes through 10,000 runs of each


def rows_of(made: Runs, run: int) -> tuple[ScoredRows, ScoredRows]:
    names = [f"s{s}" for s in made.source[run]]
    return (
        list(zip(names, made.before[run].tolist(), strict=True)),
        list(zip(names, made.after[run].tolist(), strict=True)),
    )


@pytest.mark.parametrize(("how", "loss"), [("shifts", 0.0), ("breaks", 0.1), ("shifts", -0.15)])
def test_the_simulated_decision_is_the_products(how: Any, loss: float) -> None:
    made = simulate(World("thirds", 0.6, 20, how), 60, loss, 12, np.random.default_rng(5))
    spec = EvaluationSpec(items=60)
    fast = decided(*made.clusters(), margin=spec.margin, alpha=spec.alpha, everything=True)
    for run in range(12):
        c = comparison(*rows_of(made, run))
        assert fast.verdicts[run] == c.verdict
        assert fast.promoted[run] == (gate(c, spec, None).decision == "promote")


def at_most(errors: int, runs: int, rate: float) -> bool:
    return errors / runs <= rate + 3 * math.sqrt(rate * (1 - rate) / runs)


RUNS = 600


@pytest.mark.parametrize("how", ["shifts", "breaks"])
@pytest.mark.parametrize(("n", "sources"), [(50, 10), (100, 30), (400, 60)])
def test_what_the_gate_promises(n: int, sources: int, how: Any) -> None:
    for scores, base in (("binary", 0.85), ("thirds", 0.5)):
        world, rng = World(scores, base, sources, how), np.random.default_rng(n)  # type: ignore[arg-type]
        equal = simulate(world, n, 0.0, RUNS, rng)
        called = decided(*equal.clusters(), margin=0.05, alpha=0.05)
        assert at_most(called.verdicts.count("better"), RUNS, 0.05)
        lost = simulate(world, n, 0.1, RUNS, rng)
        assert abs(float((lost.after - lost.before).mean()) + 0.1) < 0.01, "the simulation does what it says"
        assert at_most(sum(decided(*lost.clusters(), margin=0.05, alpha=0.05).promoted), RUNS, 0.01)


def test_large_changes_are_seen() -> None:
    for loss, wanted in ((0.25, "worse"), (-0.25, "better")):
        made = simulate(World("thirds", 0.6, 40, "shifts"), 120, loss, 40, np.random.default_rng(9))
        found = decided(*made.clusters(), margin=0.05, alpha=0.05, everything=True)
        assert found.verdicts.count(wanted) >= 36
        assert sum(found.promoted) == (0 if loss > 0 else sum(found.promoted)) and (
            loss > 0 or sum(found.promoted) > 35
        )


def test_items_beyond_the_draw_change_nothing_but_their_slice() -> None:
    rng = np.random.default_rng(5)

    def side(first: int, n: int, part: str, scores: Any) -> list[ItemResult]:
        return [
            ItemResult(item=f"i{k}", source=f"s{k % 9}", score=float(s), scenario=part, conforms=True)
            for k, s in zip(range(first, first + n), scores, strict=True)
        ]

    old, new = (side(0, 60, "common", rng.integers(0, 4, 60) / 3) for _ in range(2))
    more = side(100, 30, "rare", [1.0] * 30), side(100, 30, "rare", [0.0] * 30)
    given_: dict[str, Any] = {
        "margin": 0.05, "alpha": 0.05, "dataset": "d", "training_sources": {"s1"}, "protected": ["rare"]
    }  # fmt: skip
    plain = compare("a", ("old", old), ("new", new), **given_)
    found = compare("a", ("old", old), ("new", new), beyond=more, **given_)
    for name in ("champion", "challenger", "difference", "p_better", "p_worse", "verdict", "pairs", "power", "ratio"):
        assert getattr(found, name) == getattr(plain, name), name
    assert plain.beyond is None and found.beyond is not None and len(found.beyond.challenger) == 30
    assert found.digest() != plain.digest() and found.items_digest != plain.items_digest
    (rare,) = [s for s in found.slices if s.name == "rare"]
    assert rare.items == rare.beyond == 30 and rare.difference.mean == -1.0
    assert gate(found, EvaluationSpec(items=50, protected=("rare",)), None).decision == "reject"
    assert found.contaminated == ("s1",), "sources of those items are looked at too"
    alone = compare("a", ("old", []), ("new", []), beyond=more, **given_)
    assert alone.contaminated == ("s1",)
    kept = msgspec.json.decode(msgspec.json.encode(found), type=Comparison)
    assert kept == found and kept.digest() == found.digest()


def test_a_comparison_from_before_keeps_the_digest_that_was_approved() -> None:
    short = Pattern(name="short", champion=2, challenger=0, broken=0, mended=2, sources=2, examples=("i0",))
    before: ScoredRows = [("a", 0.0), ("b", 1.0), ("c", 0.5)]
    made = comparison(before, [("a", 1.0), ("b", 1.0), ("c", 0.5)], failures=[short])
    assert made.slices and made.champion.metrics is not None
    # As the code before 2026-11-21 gave it.
    assert made.digest() == "6b47e58079be76fa6d88e8930dff11a886f2e8046b1374860919f248ca994a6e"
