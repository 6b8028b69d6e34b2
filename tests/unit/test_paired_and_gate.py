"""Paired statistics: against scipy and by hand; the gate: laws and a calibration by simulation."""

from __future__ import annotations

import math
import random

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import permutation_test

from pawl.evaluation.gate import gate
from pawl.evaluation.paired import clustered_mean, compare, sign_flip, verdict_of
from pawl.evaluation.report import Comparison, GateDecision, Interval, ItemResult
from pawl.fleet.spec import EvaluationSpec

SPEC = EvaluationSpec(items=50, margin=0.05, alpha=0.05, min_score=0.0)


def results(scores: list[float | None], sources: list[str] | None = None) -> list[ItemResult]:
    names = sources or [f"s{n}" for n in range(len(scores))]
    return [
        ItemResult(item=f"i{n}", source=s, score=v, valid_json=True)
        for n, (v, s) in enumerate(zip(scores, names, strict=True))
    ]


def compared(before: list[float | None], after: list[float | None], **more: object) -> Comparison:
    sides = ("old", results(before)), ("new", results(after))
    return compare("a", *sides, margin=0.05, alpha=0.05, dataset="d", training_sources=set(), **more)  # type: ignore[arg-type]


def test_sign_flips_are_exact_for_few_sources() -> None:
    rows = [("a", 0.3), ("b", 0.1), ("c", -0.05), ("d", 0.2), ("e", 0.4)]
    better, worse = sign_flip(rows)
    values = np.array([v for _, v in rows])
    exact = permutation_test(
        (values,), np.mean, permutation_type="samples", n_resamples=np.inf, alternative="greater"
    ).pvalue
    assert better == pytest.approx(exact)
    assert worse == pytest.approx(31 / 32)  # all flips but the one that is larger still


def test_a_source_counts_once_however_many_items_it_has() -> None:
    one = [("a", 0.5)] * 50
    assert sign_flip(one)[0] == 0.5
    assert clustered_mean(one, 0.05).lower == -math.inf


def test_no_difference_is_no_evidence() -> None:
    assert sign_flip([("a", 0.0), ("b", 0.0)]) == (1.0, 1.0)


def test_the_clustered_interval_covers() -> None:
    """95 % intervals of the mean of 40 sources of 3 items hold the truth in at least 92 % of 300 draws."""
    rng, held = np.random.default_rng(3), 0
    for n in range(300):
        effects = rng.normal(0.3, 0.2, 40)
        rows = [(f"s{k}", e + rng.normal(0, 0.1)) for k, e in enumerate(effects) for _ in range(3)]
        found = clustered_mean(rows, 0.05, seed=n)
        held += found.lower <= 0.3 <= found.upper
    assert held >= 276


def test_invalid_items_are_dropped_and_counted() -> None:
    found = compared([0.0, None, 1.0], [1.0, 1.0, None])
    assert (found.pairs, found.invalid, found.difference.mean) == (1, 2, 1.0)


def test_contamination_is_named_and_rejected() -> None:
    sides = ("old", results([0.0] * 50)), ("new", results([1.0] * 50))
    found = compare("a", *sides, margin=0.05, alpha=0.05, dataset="d", training_sources={"s3", "zz"})
    assert found.contaminated == ("s3",)
    assert gate(found, SPEC, None).decision == "reject"


def test_the_digest_changes_with_any_answer() -> None:
    found = compared([0.0] * 5, [1.0] * 5)
    items = list(found.challenger.items)
    items[0] = msgspec.structs.replace(items[0], completion="other")
    other = msgspec.structs.replace(
        found, challenger=msgspec.structs.replace(found.challenger, items=tuple(items))
    )
    assert found.digest() != other.digest()
    assert found.digest() == compared([0.0] * 5, [1.0] * 5).digest()


@given(st.floats(-1, 1), st.floats(0, 1), st.floats(0, 1), st.floats(0, 1))
def test_verdicts_never_contradict_the_interval(mean: float, half: float, better: float, worse: float) -> None:
    said = verdict_of(Interval(mean, mean - half, mean + half), better, worse, 0.05, 0.05)
    assert said != "better" or (mean - half > 0 and better < 0.05)
    assert said != "worse" or (mean + half < 0 and worse < 0.05)
    assert said != "not_worse" or mean - half > -0.05


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.sampled_from([0.0, 1 / 3, 2 / 3, 1.0]), min_size=2, max_size=60),
    st.integers(0, 100),
    st.floats(0, 1),
    st.booleans(),
)
def test_the_gate_promotes_only_what_the_evidence_carries(
    before: list[float], seed: int, floor: float, rejected: bool
) -> None:
    after = list(before)
    random.Random(seed).shuffle(after)
    found = compared(list(before), list(after))
    spec = SPEC.model_copy(update={"min_score": floor})
    decided: GateDecision = gate(found, spec, "seen before" if rejected else None)
    assert decided.reasons
    if rejected or found.verdict == "worse":
        assert decided.decision == "reject"
    if decided.decision == "promote":
        assert found.verdict in ("better", "not_worse")
        assert found.pairs >= 0.9 * spec.items
        assert found.challenger.score.lower >= floor
    if decided.decision == "hold":
        assert decided.items_needed >= spec.items


@pytest.mark.parametrize("n", [50, 100])
def test_the_gate_is_calibrated(n: int) -> None:
    """Equal models are called better in at most 5 %, ones worse by twice the margin promoted in at most 1 %,
    each plus three Monte-Carlo errors (300 runs)."""
    runs, rng = 300, np.random.default_rng(n)
    spec = SPEC.model_copy(update={"items": n})
    better = promoted = 0
    for _ in range(runs):
        old = (rng.random(n) < 0.6).astype(float)
        same = (rng.random(n) < 0.6).astype(float)
        worse = (rng.random(n) < 0.5).astype(float)
        better += compared(list(old), list(same)).verdict == "better"
        promoted += gate(compared(list(old), list(worse)), spec, None).decision == "promote"
    assert better / runs <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / runs)
    assert promoted / runs <= 0.01 + 3 * math.sqrt(0.01 * 0.99 / runs)
