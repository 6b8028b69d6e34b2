"""The gate's decisions over all that a comparison can say."""

from __future__ import annotations

import math
import random
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pawl.evaluation.gate import gate, items_needed
from pawl.evaluation.paired import compare
from pawl.evaluation.report import (
    Comparison,
    GateDecision,
    Interval,
    ItemResult,
    McNemar,
    ModelResult,
    Power,
    Slice,
    SuiteResult,
    Verdict,
)
from pawl.evaluation.suite import suite_of
from pawl.fleet.spec import EvaluationSpec

SPEC = EvaluationSpec(items=100, margin=0.05, alpha=0.05, min_score=0.2)


def side(name: str, lower: float = 0.5, upper: float = 0.7) -> ModelResult:
    return ModelResult(name=name, score=Interval((lower + upper) / 2, lower, upper), conforms=1.0, items=())


def comparison(**changed: Any) -> Comparison:
    base: dict[str, Any] = {
        "agent": "a",
        "champion": side("old"),
        "challenger": side("new"),
        "difference": Interval(0.1, 0.05, 0.15),
        "p_better": 0.001,
        "p_worse": 0.999,
        "verdict": "better",
        "margin": 0.05,
        "alpha": 0.05,
        "pairs": 100,
        "invalid": 0,
        "sources": 40,
        "items_digest": "x",
        "dataset": "d",
        "loss_at_most": -0.06,
        "loss_surely_at_most": -0.02,
    }
    return Comparison(**{**base, **changed})


def part(name: str = "rare", protected: bool = True, **changed: Any) -> Slice:
    base: dict[str, Any] = {
        "name": name,
        "by": "scenario",
        "items": 30,
        "sources": 12,
        "champion": 0.5,
        "challenger": 0.5,
        "difference": Interval(0.0, -0.03, 0.03),
        "loss_at_most": 0.02,
        "p_better": 0.5,
        "p_worse": 0.5,
        "holm_better": 1.0,
        "holm_worse": 1.0,
        "protected": protected,
    }
    return Slice(**{**base, **changed})


HARM: dict[str, Any] = {"holm_worse": 0.01, "p_worse": 0.005, "difference": Interval(-0.3, -0.5, -0.1)}


def suite(lost: int = 0, gained: int = 0, **more: Any) -> SuiteResult:
    p = sum(math.comb(lost + gained, k) for k in range(lost, lost + gained + 1)) / 2 ** (lost + gained)
    outcomes = McNemar(both=5, gained=gained, lost=lost, neither=2, p_gained=0.5, p_lost=p)
    return SuiteResult(outcomes=outcomes, lost=tuple(f"item{n}" for n in range(lost)), **more)


def test_better_and_not_worse_are_promoted() -> None:
    assert gate(comparison(), SPEC, None).decision == "promote"
    assert gate(comparison(verdict="not_worse"), SPEC, None).decision == "promote"
    assert "better" in gate(comparison(), SPEC, None).reasons[0]


def test_each_ground_for_rejection_is_named() -> None:
    grounds: list[tuple[dict[str, Any], str | None, str]] = [
        ({"contaminated": ("acm",)}, None, "acm"),
        ({}, "rolled back in May", "rolled back in May"),
        ({"verdict": "worse", "difference": Interval(-0.2, -0.3, -0.1)}, None, "worse than the champion"),
        ({"slices": (part(**HARM),)}, None, "protected slice rare"),
        ({"suite": suite(lost=6, must_pass_failed=("login",))}, None, "login"),
        ({"challenger": side("new", 0.0, 0.19)}, None, "floor"),
    ]
    for changed, before, says in grounds:
        decision = gate(comparison(**changed), SPEC, before)
        assert decision.decision == "reject" and says in decision.reasons[0]
        assert decision.slices == (("rare",) if "slices" in changed else ())
    everything: dict[str, Any] = {}
    for changed, _, _ in grounds:
        everything |= changed
    assert len(gate(comparison(**everything), SPEC, "before").reasons) == 7


def test_the_suite_counts_beyond_an_exact_test_and_must_pass_counts_always() -> None:
    assert gate(comparison(suite=suite(lost=4)), SPEC, None).decision == "promote"  # 1/16
    assert gate(comparison(suite=suite(lost=5)), SPEC, None).decision == "reject"  # 1/32
    assert gate(comparison(suite=suite(lost=5, gained=5)), SPEC, None).decision == "promote"
    assert gate(comparison(suite=suite(gained=9, must_pass_failed=("a",))), SPEC, None).decision == "reject"
    unknown = gate(comparison(suite=suite(must_pass_unknown=("gone",))), SPEC, None)
    assert unknown.decision == "hold" and "gone" in unknown.reasons[0]


def test_each_lack_of_evidence_holds() -> None:
    unsure = {"verdict": "not_enough_evidence", "difference": Interval(0.0, -0.1, 0.1), "loss_at_most": 0.1}
    for changed in (
        unsure,
        {"loss_surely_at_most": 0.1},
        {"pairs": 89},
        {"challenger": side("new", 0.19, 0.7)},
        {"verdict": "not_enough_evidence", "p_worse": 0.03},
    ):
        decision = gate(comparison(**changed), SPEC, None)
        assert decision.decision == "hold" and len(decision.reasons) == 1 and decision.items_needed >= SPEC.items
    assert gate(comparison(pairs=90), SPEC, None).decision == "promote"


def test_two_models_that_fail_alike_are_held() -> None:
    rows: list[Row] = [(f"s{n}", 0.0, 0.0, "y") for n in range(60)]
    decision = judged(rows, spec_of(protected=()))
    assert decision.decision == "hold" and "above 0" in decision.reasons[0]


def test_a_protected_slice_must_be_there_and_shown_not_to_regress() -> None:
    spec = SPEC.model_copy(update={"protected": ("rare",)})
    assert gate(comparison(slices=(part(),)), spec, None).decision == "promote"
    for slices, says in (((), "no item"), ((part(loss_at_most=0.2),), "not excluded"), ((part("other"),), "no item")):
        decision = gate(comparison(slices=slices), spec, None)
        assert decision.decision == "hold" and says in decision.reasons[0] and decision.items_needed > 100
    wide = comparison(slices=(part(loss_at_most=0.2),), protected_margin=0.25)
    assert gate(wide, spec, None).decision == "promote"


def test_harm_in_another_slice_is_told_and_left_to_the_person_who_approves() -> None:
    decision = gate(comparison(slices=(part(protected=False, **HARM),)), SPEC, None)
    assert decision.decision == "promote" and "worse in the slice rare" in decision.reasons[1]


def test_the_estimate_of_items_follows_the_square_root() -> None:
    unsure: dict[str, Any] = {"verdict": "not_enough_evidence", "p_worse": 0.5, "loss_surely_at_most": 0.09}
    none = {"difference": Interval(0.0, -0.1, 0.1), "loss_at_most": 0.1}
    assert items_needed(comparison(**unsure, **none), SPEC) == 400  # half the width takes four times the items
    assert items_needed(comparison(**unsure, **{**none, "loss_at_most": 0.0501}), SPEC) == 101
    hopeless = {"difference": Interval(-0.06, -0.2, 0.1), "loss_at_most": 0.2}
    assert items_needed(comparison(**unsure, **hopeless), SPEC) == 200
    assert items_needed(comparison(pairs=0), SPEC) == 100
    strict = comparison(difference=Interval(0.0, -0.2, 0.2), loss_surely_at_most=0.3)
    assert items_needed(strict, SPEC) == 900
    power = Power(sd=0.5, design_effect=1.2, power=0.8, detectable=0.1, items_for_margin=900, available=250)
    told = gate(comparison(**unsure, **none, power=power), SPEC, None)
    assert told.items_needed == 400 and "have 250 items" in told.reasons[1]


VERDICTS: st.SearchStrategy[Verdict] = st.sampled_from(["better", "not_worse", "worse", "not_enough_evidence"])


@given(
    VERDICTS, st.integers(0, 200), st.floats(0, 1), st.floats(0, 1), st.booleans(), st.sampled_from([None, "", "bad"])
)
def test_promotion_needs_everything_at_once(
    verdict: Verdict, pairs: int, one: float, other: float, tainted: bool, before: str | None
) -> None:
    lower, upper = sorted((one, other))
    made = comparison(
        verdict=verdict,
        pairs=pairs,
        challenger=side("new", lower, upper),
        contaminated=("s",) if tainted else (),
    )
    decision = gate(made, SPEC, before)
    fine = verdict in ("better", "not_worse") and pairs >= 90 and lower >= 0.2 and not tainted and before is None
    assert (decision.decision == "promote") == fine
    assert decision.reasons and (decision.items_needed > 0) == (decision.decision == "hold")
    # A remembered rejection can only be added, never lost: with one, nothing is promoted or held.
    assert gate(made, SPEC, "seen before").decision == "reject"
    assert msgspec.json.decode(msgspec.json.encode(decision), type=type(decision)) == decision


# -- laws from the answers to the decision

SCORES = st.sampled_from([0.0, 1 / 3, 2 / 3, 1.0])
ROWS = st.lists(
    st.tuples(st.sampled_from("abcdefghijkl"), SCORES, SCORES, st.sampled_from(["x", "y"])), min_size=10, max_size=60
)
Row = tuple[str, float, float, str]
ORDER = {"reject": 0, "hold": 1, "promote": 2}


def judged(rows: list[Row], spec: EvaluationSpec, swapped: bool = False, seed: int | None = None) -> GateDecision:
    """Through `compare`; the suite is the first eight items. With a seed the answers come in another order."""
    scores = [(r[2], r[1]) if swapped else (r[1], r[2]) for r in rows]
    old, new = (
        [
            ItemResult(item=f"i{n:03}", source=r[0], score=pair[side], scenario=r[3], conforms=True)
            for n, (r, pair) in enumerate(zip(rows, scores, strict=True))
        ]
        for side in (0, 1)
    )
    found = suite_of(old[:8], new[:8], must_pass=(), pass_score=spec.pass_score)
    if seed is not None:
        random.Random(seed).shuffle(old)
        random.Random(seed + 1).shuffle(new)
    made = compare(
        "a",
        ("old", old),
        ("new", new),
        margin=spec.margin,
        alpha=spec.alpha,
        dataset="d",
        training_sources=set(),
        protected=spec.protected,
        suite=found,
    )
    return gate(made, spec, None)


def spec_of(**changed: Any) -> EvaluationSpec:
    return EvaluationSpec(**{"items": 10, "margin": 0.1, "protected": ("x",), **changed})


@settings(max_examples=25, deadline=None)
@given(ROWS, st.integers(0, 1000))
def test_the_order_of_answers_decides_nothing(rows: list[Row], seed: int) -> None:
    assert judged(rows, spec_of(), seed=seed) == judged(rows, spec_of())


@settings(max_examples=25, deadline=None)
@given(ROWS, st.floats(0.02, 0.9), st.floats(0.02, 0.9))
def test_a_wider_margin_never_decides_less_favourably(rows: list[Row], one: float, other: float) -> None:
    narrow, wide = sorted((one, other))
    assert ORDER[judged(rows, spec_of(margin=narrow)).decision] <= ORDER[judged(rows, spec_of(margin=wide)).decision]


@settings(max_examples=25, deadline=None)
@given(ROWS)
def test_of_two_models_at_most_one_is_rejected_for_harm(rows: list[Row]) -> None:
    spec = spec_of(protected=())
    decisions = {judged(rows, spec).decision, judged(rows, spec, swapped=True).decision}
    assert decisions != {"reject"}


@st.composite
def losses(draw: st.DrawFn) -> list[Row]:
    """Mostly worse, in many sources: what is rejected."""
    rows = draw(ROWS)
    return [(source, max(a, b), min(a, b), part) if n % 8 else (source, a, b, part)
            for n, (source, a, b, part) in enumerate(rows)]  # fmt: skip


KNOWN, NEW = "abcdefghijkl", "ABCDEFGH"  # sources that the equal pairs are of


@settings(max_examples=40, deadline=None)
@given(losses(), st.integers(1, 400), st.sampled_from([KNOWN, NEW]), SCORES)
def test_equal_pairs_never_turn_a_rejection_into_a_promotion(rows: list[Row], more: int, named: str, at: float) -> None:
    before = judged(rows, spec_of()).decision
    extra: list[Row] = [(named[n % len(named)], at, at, "xyz"[n % 3]) for n in range(more)]
    after = judged([*rows, *extra], spec_of()).decision
    assert not (before == "reject" and after == "promote")


def test_a_shown_loss_is_not_diluted_into_a_promotion() -> None:
    rows: list[Row] = [(f"s{n}", 1.0, 0.0, "x") for n in range(12)]
    assert judged(rows, spec_of(protected=())).decision == "reject"
    for more in (100, 10_000):
        extra: list[Row] = [(f"e{n % 50}", 1.0, 1.0, "y") for n in range(more)]
        assert judged([*extra, *rows], spec_of(protected=())).decision != "promote"


@pytest.mark.parametrize(("loss", "decision"), [(0.6, "promote"), (-0.6, "reject")])
def test_the_demos_gap_is_seen_on_sixteen_items(loss: float, decision: str) -> None:
    rng = random.Random(1)
    rows: list[Row] = []
    for n in range(16):
        right = round(3 * min(1.0, max(0.0, rng.gauss(0.6, 0.2)))) / 3
        rows.append((f"s{n % 11}", 0.0 if loss > 0 else right, right if loss > 0 else 0.0, "x"))
    assert judged(rows, spec_of(items=16, margin=0.2, protected=())).decision == decision
