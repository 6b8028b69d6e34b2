"""The gate's decisions over all that a comparison can say."""

from __future__ import annotations

from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from pawl.evaluation.gate import gate, items_needed
from pawl.evaluation.report import Comparison, Interval, ModelResult, Verdict
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
    }
    return Comparison(**{**base, **changed})


def test_better_and_not_worse_are_promoted() -> None:
    assert gate(comparison(), SPEC, None).decision == "promote"
    assert gate(comparison(verdict="not_worse"), SPEC, None).decision == "promote"
    assert "better" in gate(comparison(), SPEC, None).reasons[0]


def test_each_ground_for_rejection_is_named() -> None:
    grounds: list[tuple[dict[str, Any], str | None, str]] = [
        ({"contaminated": ("acm",)}, None, "acm"),
        ({}, "rolled back in May", "rolled back in May"),
        ({"verdict": "worse", "difference": Interval(-0.2, -0.3, -0.1)}, None, "worse"),
        ({"challenger": side("new", 0.0, 0.19)}, None, "floor"),
    ]
    for changed, before, says in grounds:
        decision = gate(comparison(**changed), SPEC, before)
        assert decision.decision == "reject" and len(decision.reasons) == 1 and says in decision.reasons[0]
    everything: dict[str, Any] = {}
    for changed, _, _ in grounds:
        everything |= changed
    assert len(gate(comparison(**everything), SPEC, "before").reasons) == 4


def test_each_lack_of_evidence_holds() -> None:
    for changed in (
        {"verdict": "not_enough_evidence", "difference": Interval(0.0, -0.1, 0.1)},
        {"pairs": 89},
        {"challenger": side("new", 0.19, 0.7)},
    ):
        decision = gate(comparison(**changed), SPEC, None)
        assert decision.decision == "hold" and len(decision.reasons) == 1 and decision.items_needed >= SPEC.items
    assert gate(comparison(pairs=90), SPEC, None).decision == "promote"


def test_the_estimate_of_items_follows_the_square_root() -> None:
    unsure = comparison(verdict="not_enough_evidence", difference=Interval(0.0, -0.1, 0.1))
    assert items_needed(unsure, SPEC) == 400  # half the width takes four times the items
    hopeless = comparison(difference=Interval(-0.06, -0.2, 0.1))
    assert items_needed(hopeless, SPEC) == 200
    assert items_needed(comparison(pairs=0), SPEC) == 100
    endless = comparison(difference=Interval(0.0, float("-inf"), float("inf")))
    assert items_needed(endless, SPEC) == 200


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
