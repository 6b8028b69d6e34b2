"""Valid cases: what the oracle counts, what three payloads can cover, and that the reference reaches it."""

from __future__ import annotations

import gzip
import os
import random
from collections import Counter
from itertools import islice
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pawl.errors import SourceError
from pawl.fleet.source import TaskSourceSpec
from pawl.qe.functional_positive import oracle, reference
from pawl.qe.functional_positive.coverage import Goal, goals, met
from pawl.qe.functional_positive.payloads import Plan, payload
from pawl.qe.functional_positive.task import RARE
from pawl.qe.operations import sources
from pawl.qe.operations.openapi_schema import resolve
from pawl.qe.operations.operation import Operation
from pawl.qe.operations.validator import compiled
from pawl.qe.tasks import task_of

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "minLength": 3, "maxLength": 8},
        "size": {"type": "integer", "minimum": 1, "maximum": 9},
        "kind": {"enum": ["a", "b", "c", "d"]},
        "note": {"type": "string"},
        "tags": {"type": "array", "items": {"type": "string"}, "minItems": 1, "maxItems": 2},
    },
    "required": ["name", "kind"],
    "additionalProperties": False,
}
SMALL = {"name": "ops", "kind": "a"}
FULL = {"name": "billings", "kind": "b", "size": 1, "note": "first draft", "tags": ["red"]}
LIMITS = {"name": "orders", "kind": "c", "size": 9, "tags": ["red", "blue"]}
OP = Operation(id="shop.AddItem", source="shop", method="POST", path="/items", schema=SCHEMA)
ASKED = oracle.messages(OP)
task = task_of("functional-positive")


def answer(*payloads: Any) -> str:
    return orjson.dumps({"test_cases": [{"name": f"case {i}", "payload": p} for i, p in enumerate(payloads)]}).decode()


def missed(*payloads: Any) -> set[tuple[str, str, float]]:
    found = oracle.grade(SCHEMA, answer(*payloads))
    return {(g.kind, str(g.place[0] if g.place else ""), g.want) for g in found.asked if g not in found.met}


def test_three_payloads_that_cover_everything_are_worth_one() -> None:
    found = oracle.grade(SCHEMA, answer(SMALL, FULL, LIMITS))
    assert found.score == 1.0 == found.coverage and {c.outcome for c in found.cases} == {"valid"}
    assert Counter(g.kind for g in found.asked) == {
        "minimal": 1, "optional": 3, "enum": 3, "limit": 6, "plausible": 1,
    }  # fmt: skip


def test_what_is_left_out_costs_its_share() -> None:
    without_note = {k: v for k, v in FULL.items() if k != "note"}
    found = oracle.grade(SCHEMA, answer(SMALL, without_note, LIMITS))
    assert found.score == pytest.approx(13 / 14) and missed(SMALL, without_note, LIMITS) == {("optional", "note", 0)}
    assert missed(SMALL, {**FULL, "kind": "a"}, LIMITS) == {("enum", "kind", 3)}
    assert missed(SMALL, {**FULL, "name": "bills"}, LIMITS) == {("limit", "name", 8)}
    assert missed({**SMALL, "size": 2}, FULL, LIMITS) == {("minimal", "", 0)}
    assert missed(SMALL, {**FULL, "note": "string"}, LIMITS) == {("plausible", "", 0)}
    assert missed(SMALL, {**FULL, "note": "aaaa"}, LIMITS) == {("plausible", "", 0)}


def test_the_smallest_payload_three_times_is_worth_little() -> None:
    same = oracle.grade(SCHEMA, answer(SMALL, SMALL, SMALL))
    assert [c.outcome for c in same.cases] == ["valid", "duplicate", "duplicate"]
    assert same.score == pytest.approx(1 / 3 * 4 / 14)
    reordered = oracle.grade(SCHEMA, answer(SMALL, dict(reversed(SMALL.items()))))
    assert reordered.cases[1].outcome == "duplicate"


def test_wrong_cases_cover_nothing() -> None:
    found = oracle.grade(SCHEMA, answer(SMALL, FULL, {**LIMITS, "size": 10}))
    assert found.cases[2].outcome == "invalid_payload" and found.cases[2].signature == "maximum@size"
    assert Goal("limit", ("size",), 9) not in found.met and Goal("enum", ("kind",), 3) not in found.met
    assert found.score == pytest.approx(2 / 3 * 11 / 14)
    more = oracle.grade(SCHEMA, answer(SMALL, FULL, LIMITS, {}))
    assert more.score == pytest.approx(3 / 4)


def test_an_optional_enumeration_is_asked_for_twice_since_one_payload_is_minimal() -> None:
    schema = {"properties": {"k": {"enum": ["a", "b", "c"]}, "r": {"enum": ["a", "b", "c"]}}, "required": ["r"]}
    assert Counter(g.place for g in goals(schema) if g.kind == "enum") == {("k",): 2, ("r",): 3}


@pytest.mark.parametrize(
    ("sub", "asked"),
    [
        ({"type": "string", "minLength": 1, "maxLength": 200}, [1]),
        ({"type": "string", "maxLength": 24}, [24]),
        ({"type": "string", "minLength": 4, "maxLength": 4}, [4]),
        ({"type": "string", "minLength": 4, "pattern": "^a*$"}, []),
        ({"type": "integer", "minimum": 0, "maximum": 100000}, [0, 100000]),
        ({"type": "integer", "minimum": 1, "multipleOf": 2}, []),
        ({"type": ["number", "null"], "exclusiveMinimum": 0, "maximum": 1}, [1]),
        ({"type": "array", "minItems": 0, "maxItems": 50}, []),
        ({"type": "array", "minItems": 1, "maxItems": 3}, [1, 3]),
        ({"enum": ["a"]}, []),
    ],
)
def test_only_limits_that_are_short_and_surely_reachable_are_asked_for(sub: Any, asked: list[float]) -> None:
    schema = {"type": "object", "properties": {"x": sub}, "required": ["x"]}
    assert [g.want for g in goals(schema) if g.kind == "limit"] == asked
    assert not any(g.kind in ("enum", "minimal", "optional") for g in goals(schema))


def test_members_within_members_and_lists_count() -> None:
    inner = {"type": "object", "properties": {"n": {"type": "integer", "maximum": 5}, "s": {"type": "boolean"}}}
    schema = {"type": "object", "properties": {"list": {"type": "array", "items": {**inner, "required": ["n"]}}}}
    asked = goals(schema)
    assert {(g.kind, g.place) for g in asked} == {
        ("minimal", ()), ("optional", ("list",)), ("limit", ("list", None, "n")), ("optional", ("list", None, "s")),
    }  # fmt: skip
    full: list[Any] = [{}, {"list": [{"n": 1}, {"n": 5, "s": True}]}]
    assert met(asked, schema, full) == set(asked)
    assert {g.kind for g in met(asked, schema, full[1:])} == {"optional", "limit"}
    assert met(asked, schema, []) == set()


@pytest.mark.parametrize(
    ("text", "key"),
    [
        (answer(SMALL, FULL, LIMITS), ""),
        ("sorry", "not_json"),
        (f"Here: {answer(SMALL)}", "prose_around_json"),
        ('{"cases":[]}', "no_test_cases"),
        (answer(SMALL, FULL), "too_few"),
        (answer(SMALL, FULL, LIMITS, {**LIMITS, "size": 5}), "too_many"),
        (answer(SMALL, {}, {"name": 1}), "invalid_payload"),
        (answer(SMALL, SMALL, FULL), "duplicate"),
        (answer(SMALL, {**SMALL, "kind": "b"}, {**SMALL, "kind": "c"}), "no_optional"),
        (answer({**SMALL, "size": 2}, FULL, LIMITS), "no_minimal"),
        (answer(SMALL, {**FULL, "size": 3}, LIMITS), "no_limit"),
        (answer(SMALL, {**FULL, "note": "foo"}, LIMITS), "placeholder"),
        ('{"test_cases":[{"name":"a"},{"payload":{}},7]}', "malformed"),
    ],
)
def test_failures_have_names(text: str, key: str) -> None:
    assert task.cluster_key(ASKED, text) == key
    grade = task.grade(ASKED, text)
    assert grade is not None and (grade.score == 1.0) == (key == "") == (grade.problem == "")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(0, 10) | st.sampled_from(["ops", "a", "b", "string"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(list(SCHEMA["properties"])), inner),
    max_leaves=6,
)


@given(st.lists(JSON | st.sampled_from([SMALL, FULL, LIMITS]), min_size=1, max_size=5))
def test_the_score_is_bounded_and_right_cases_are_really_valid(payloads: list[Any]) -> None:
    found = oracle.grade(SCHEMA, answer(*payloads))
    right = [p for p, c in zip(payloads[:3], found.cases, strict=True) if c.outcome == "valid"]
    assert all(compiled(SCHEMA).is_valid(p) for p in right)
    assert 0 <= found.score <= len(right) / max(3, len(payloads))
    assert len(payloads) > 3 or oracle.grade(SCHEMA, answer(*reversed(payloads))).score == pytest.approx(found.score)


@given(st.permutations([SMALL, FULL, LIMITS]), st.sampled_from([SMALL, FULL, LIMITS]))
def test_one_more_right_case_never_covers_less(three: list[Any], one: Any) -> None:
    asked = goals(SCHEMA)
    assert met(asked, SCHEMA, three[:1]) - {Goal("plausible")} <= met(asked, SCHEMA, [*three[:1], one])


@pytest.mark.parametrize("depth", [300, 5000])
def test_deep_payloads_and_schemas_are_no_crash(depth: int) -> None:
    deep = '{"test_cases":[{"name":"deep","payload":' + "[" * depth + "]" * depth + "}]}"
    assert oracle.grade({}, deep).score <= 1 / 3
    schema = '{"properties":{"a":' * 400 + "{}" + "}}" * 400
    asked = [{"role": "user", "content": f"POST / a.B\n{schema}"}]
    grade = task.grade(asked, answer({}, {"a": {}}, 1))
    assert grade is None or 0 <= grade.score <= 1


def test_the_reference_covers_what_can_be_covered() -> None:
    made = reference.answer(SCHEMA, random.Random(0))
    assert made is not None and oracle.grade(SCHEMA, made).score == 1.0
    assert reference.answer(SCHEMA, random.Random(0)) == made
    assert len({reference.answer(SCHEMA, random.Random(n)) for n in range(40)}) >= 3


@pytest.mark.parametrize(
    "schema",
    [
        {"not": {}},
        {"type": "object", "properties": {"on": {"type": "boolean"}}, "required": ["on"]},
        {"type": "object", "properties": {"a": {"type": "string", "pattern": "^(?=x)(y|xx)$"}}, "required": ["a"]},
        {"type": "object", "properties": {f"member{n}": {"type": "string"} for n in range(30)}},
    ],
)
def test_what_three_short_payloads_cannot_cover_is_no_item(schema: dict[str, Any]) -> None:
    assert not reference.solvable(schema) and reference.answer(schema, random.Random(1)) is None


def test_a_source_without_any_such_operation_says_so(tmp_path: Path) -> None:
    body = {
        "content": {"application/json": {"schema": {"properties": {"on": {"type": "boolean"}}, "required": ["on"]}}}
    }
    document = {"openapi": "3.1.0", "paths": {"/a": {"post": {"requestBody": body}}}}
    (tmp_path / "api.json").write_bytes(orjson.dumps(document))
    with pytest.raises(SourceError, match="three short payloads"):
        task.items(TaskSourceSpec(kind="openapi", location=str(tmp_path / "api.json")))


def test_payloads_grow_from_the_smallest_to_the_fullest() -> None:
    smallest, fullest = payload(SCHEMA, Plan(0)), payload(SCHEMA, Plan(1))
    assert list(smallest) == ["name", "kind"] and list(fullest) == list(SCHEMA["properties"])
    assert len(smallest["name"]) == 3 and len(fullest["name"]) == 8


@pytest.fixture(scope="module")
def some() -> list[Operation]:
    return random.Random(2).sample(sources.load(TaskSourceSpec()), 300)


def test_most_real_operations_are_items_with_short_full_marks(some: list[Operation]) -> None:
    offered = [o for o in some if reference.solvable(o.schema)]
    assert len(offered) / len(some) > 0.8
    answers = [reference.answer(o.schema, random.Random(o.id)) or "" for o in offered]
    assert all(oracle.grade(o.schema, a).score == 1.0 for o, a in zip(offered, answers, strict=True))
    assert sum(map(len, answers)) / len(answers) < 330 and max(map(len, answers)) < 600


def test_classes_of_real_operations_are_several_and_none_dominates(some: list[Operation]) -> None:
    items = [i for o in some for i in [task_item(o)] if reference.solvable(o.schema)]
    found = Counter(task.class_of(i) for i in items)
    assert set(found) <= {*RARE, "required"} and len(found) >= 5 and max(found.values()) / len(items) < 0.5
    for item in items[:40]:
        made = task.reference(item, random.Random(1)) or ""
        assert task.scenario_of(item.messages, made) == task.class_of(item)


def task_item(op: Operation) -> Any:
    from pawl.qe.item import Item

    return Item(id=op.id, source=op.source, messages=oracle.messages(op))


def test_variants_keep_full_marks_often_enough(some: list[Operation]) -> None:
    kept: Counter[str] = Counter()
    for op in some[:40]:
        if (made := reference.answer(op.schema, random.Random(1))) is None:
            continue
        for variant in islice(task.variants(oracle.messages(op), made, random.Random(op.id)), 10):
            grade = task.grade(variant.messages, variant.completion)
            kept[variant.kind] += grade is not None and grade.score == 1.0
            assert variant.messages != oracle.messages(op)
    assert set(kept) == {"renamed_members", "reordered", "constraints", "reworded", "renamed_operation"}
    assert min(kept.values()) >= 15, kept


@pytest.mark.skipif("PAWL_DATA_DIR" not in os.environ, reason="PAWL_DATA_DIR holds no openapi_bodies.jsonl.gz")
def test_real_openapi_bodies_are_mostly_solvable() -> None:
    path = Path(os.environ["PAWL_DATA_DIR"]) / "openapi_bodies.jsonl.gz"
    if not path.exists():
        pytest.skip(f"{path} is missing")
    with gzip.open(path) as file:
        rows = [orjson.loads(line) for line in file][::10]
    solved = [reference.solvable(resolve({}, row["schema"])) for row in rows]
    assert len(solved) > 300 and sum(solved) / len(solved) > 0.5
