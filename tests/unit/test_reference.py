"""Reference answers are right, short and regular; faults and corruption are really wrong."""

from __future__ import annotations

import random
from typing import Any

import jsonschema_rs
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pawl.fleet.spec import TaskSourceSpec
from pawl.qe.functional_negative import reference
from pawl.qe.functional_negative.oracle import grade, response_schema
from pawl.qe.operations import sources
from pawl.qe.operations.operation import Operation
from pawl.qe.operations.validator import compiled

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "minLength": 2, "maxLength": 4},
        "kind": {"enum": ["x1", "x2"]},
        "count": {"type": "integer", "minimum": 5, "maximum": 9},
        "ids": {"type": "array", "items": {"type": "integer"}, "minItems": 1},
    },
    "required": ["name"],
}


@pytest.fixture(scope="module")
def some() -> list[Operation]:
    return random.Random(2).sample(sources.load(TaskSourceSpec()), 300)


def test_real_operations_get_three_right_short_cases(some: list[Operation]) -> None:
    rng = random.Random(1)
    answers = [reference.answer(o.schema, rng, 0.0) for o in some]
    assert [grade(o.schema, a).score for o, a in zip(some, answers, strict=True)] == [1.0] * len(some)
    assert sum(map(len, answers)) / len(answers) < 330, "about 90 tokens: what a small model can learn and afford"


def test_most_cases_break_one_rule_only(some: list[Operation]) -> None:
    rng = random.Random(1)
    signatures = [case.signature for o in some for case in grade(o.schema, reference.answer(o.schema, rng, 0.0)).cases]
    assert sum(";" not in s for s in signatures) / len(signatures) > 0.9


def test_cases_follow_the_order_of_members_and_vary() -> None:
    order = list(SCHEMA["properties"])
    seen = set()
    for seed in range(60):
        names = [c["name"] for c in reference.cases(SCHEMA, random.Random(seed))]
        fields = [order.index(n.removeprefix("missing ").split()[0]) for n in names]
        assert fields == sorted(fields)
        seen |= set(names)
    assert {"missing name", "kind not in enum", "count below minimum", "ids empty list"} <= seen
    assert len(seen) >= 8


@given(st.integers())
def test_same_seed_same_answer(seed: int) -> None:
    assert reference.answer(SCHEMA, random.Random(seed)) == reference.answer(SCHEMA, random.Random(seed))


@given(st.integers(), st.floats(0, 1))
def test_faults_cost_and_the_rest_does_not(seed: int, rate: float) -> None:
    rng = random.Random(seed)
    assert grade(SCHEMA, reference.answer(SCHEMA, rng, 0.0)).score == 1.0
    assert grade(SCHEMA, reference.answer(SCHEMA, rng, 1.0)).score < 1.0
    assert 0 <= grade(SCHEMA, reference.answer(SCHEMA, rng, rate)).score <= 1


def test_every_fault_occurs_about_as_often_as_asked(some: list[Operation]) -> None:
    rng = random.Random(4)
    wrong = [
        (a, g) for o in some * 4 for a in [reference.answer(o.schema, rng, 0.15)] if (g := grade(o.schema, a)).score < 1
    ]
    assert 0.11 < len(wrong) / (4 * len(some)) < 0.19  # 0.15 +- 4 standard errors
    outcomes = {c.outcome for _, g in wrong for c in g.cases}
    assert {"wrongly_accepted", "duplicate", "bad_status"} <= outcomes
    assert any(not g.valid_json and a.startswith("Here") for a, g in wrong)
    assert any(not g.valid_json and a.startswith("{") for a, g in wrong)


@given(st.integers(), st.sampled_from([SCHEMA, {}, {"type": "array"}, {"required": ["a"]}, {"type": "null"}]))
def test_corruption_keeps_the_form_and_is_worth_nothing(seed: int, schema: dict[str, Any]) -> None:
    bad = reference.corrupt(schema, random.Random(seed))
    assert jsonschema_rs.is_valid(response_schema(), orjson.loads(bad))
    assert grade(schema, bad).score == 0.0 and grade(schema, bad).valid_json


def test_corruption_of_what_accepts_nothing_is_worth_nothing_either() -> None:
    bad = reference.corrupt({"not": {}}, random.Random(1))
    assert grade({"not": {}}, bad).score == 0.0


def test_minimal_is_valid_where_that_is_easy() -> None:
    assert reference.minimal(SCHEMA) == {"name": "aa"}
    nested = {"type": "object", "properties": {"in": SCHEMA, "n": {"type": "number", "exclusiveMinimum": 3}}}
    nested["required"] = ["in", "n"]
    assert compiled(nested).is_valid(reference.minimal(nested))


@pytest.mark.parametrize(
    "schema",
    [{}, {"type": "object"}, {"properties": {"a": True}}, {"required": ["a"]}, {"type": "array"}],
)
def test_odd_schemas_get_what_there_is(schema: dict[str, Any]) -> None:
    made = reference.cases(schema, random.Random(0))
    assert len(made) <= 3 and not any(compiled(schema).is_valid(c["payload"]) for c in made)
    orjson.loads(reference.answer(schema, random.Random(0), 0.0))
