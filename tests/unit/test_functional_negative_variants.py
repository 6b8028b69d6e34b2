"""What the built-in task offers as variants: one change each, carried through the answer."""

from __future__ import annotations

import random
from collections import Counter
from itertools import islice
from typing import Any

import jsonschema
import msgspec
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pawl.curation.dataset import Example
from pawl.fleet.spec import TaskSourceSpec
from pawl.qe.functional_negative import oracle, reference
from pawl.qe.operations import sources
from pawl.qe.operations.constraints import edited
from pawl.qe.operations.operation import Operation
from pawl.qe.operations.prompt import parsed
from pawl.qe.operations.schema_walk import member_names, rebuilt, reshaped
from pawl.qe.operations.validator import compiled, signature
from pawl.qe.operations.variants import KINDS
from pawl.qe.operations.wording import new_names
from pawl.qe.task import Messages, Variant
from pawl.qe.tasks import task_of

task = task_of("functional-negative")
NESTED: dict[str, Any] = {
    "type": "object",
    "properties": {
        "itemName": {"type": "string", "minLength": 2, "maxLength": 6},
        "owner": {
            "type": "object",
            "properties": {"userId": {"type": "integer", "minimum": 1}, "type": {"enum": ["A", "B", "C"]}},
            "required": ["userId"],
        },
        "tags": {"type": "object", "additionalProperties": {"type": "string"}},
        "sizes": {"type": "array", "items": {"type": "number", "maximum": 9}, "minItems": 2},
        "either": {"oneOf": [{"type": "object", "required": ["tagName"]}, {"type": "null"}]},
    },
    "required": ["itemName"],
}
NESTED_OP = Operation(id="shop.AddItem", source="shop", method="POST", path="/items/{itemName}", schema=NESTED)
NESTED_CASES = [
    {"itemName": "a", "tags": {"itemName": "x", "userId": "y"}},
    {"itemName": "aa", "owner": {"userId": 0, "type": "A"}},
    {"itemName": "aa", "owner": {"userId": 1, "type": "x"}, "sizes": [1.5, 2]},
    {"itemName": "aa", "sizes": [1, 10]},
    {"itemName": "aa", "either": {"tagNme": 1}},
    {"itemName": "aaaaaaa", "either": {"tagName": 1}},
]


def example(op: Operation, completion: str, **more: Any) -> Example:
    base: dict[str, Any] = {"id": op.id, "messages": oracle.messages(op), "completion": completion, "quality": 1.0}
    return Example(**{**base, "source": op.source, "interactions": (f"from-{op.id}",), **more})


def answer(names: list[str], payloads: list[Any]) -> str:
    pairs = zip(names, payloads, strict=True)
    return orjson.dumps({"test_cases": [{"name": n, "payload": p, "expected_status": 400} for n, p in pairs]}).decode()


@pytest.fixture(scope="module")
def real() -> list[Example]:
    some = random.Random(3).sample(sources.load(TaskSourceSpec()), 80)
    return [example(o, reference.answer(o.schema, random.Random(o.id), 0.0)) for o in some]


def offered(e: Example, kind: str, n: int = 3) -> list[Variant]:
    stream = task.variants(e.messages, e.completion, random.Random(e.id))
    return [v for v in islice(stream, n * len(KINDS)) if v.kind == kind]


def taken_apart(messages: Messages, completion: str) -> tuple[Operation, list[dict[str, Any]]]:
    return parsed(messages), orjson.loads(completion)["test_cases"]


def test_members_are_renamed_everywhere_alike(real: list[Example]) -> None:
    seen = 0
    for e in real:
        op, cases = taken_apart(e.messages, e.completion)
        flat = "additionalProperties" not in orjson.dumps(op.schema).decode()
        for v in offered(e, "renamed_members"):
            new, new_cases = taken_apart(v.messages, v.completion)
            names = dict(zip(op.schema["properties"], new.schema["properties"], strict=True))
            assert len(set(names.values())) == len(names), "two members became one"
            assert [names[r] for r in op.schema.get("required", [])] == new.schema.get("required", [])
            moved = {k: n for k, n in names.items() if k != n}
            assert [f"{{{n}}}" in new.path for k, n in moved.items() if f"{{{k}}}" in op.path].count(False) == 0
            for old_case, new_case in zip(cases, new_cases, strict=True):
                if isinstance(old_case["payload"], dict):
                    assert [names.get(k, k) for k in old_case["payload"]] == list(new_case["payload"])
                if flat and old_case["name"].startswith("missing "):
                    assert new_case["name"] == f"missing {names[old_case['name'].removeprefix('missing ')]}"[:80]
            seen += bool(moved)
    assert seen > 60


def test_names_deep_inside_follow_and_the_keys_of_maps_do_not() -> None:
    e = example(NESTED_OP, answer([f"case {'abcdef'[i]}" for i in range(6)], NESTED_CASES))
    variants = offered(e, "renamed_members", 30)
    changed: Counter[str] = Counter()
    for v in variants:
        op, cases = taken_apart(v.messages, v.completion)
        names = dict(zip(member_names(NESTED), member_names(op.schema), strict=True))
        changed.update(k for k, n in names.items() if k != n)
        assert op.path == f"/items/{{{names['itemName']}}}"
        assert list(cases[0]["payload"].values())[1] == {"itemName": "x", "userId": "y"}
        assert cases[1]["payload"][names["owner"]] == {names["userId"]: 0, names["type"]: "A"}
        assert cases[4]["payload"][names["either"]] == {"tagNme": 1}
        assert cases[5]["payload"][names["either"]] == {names["tagName"]: 1}
    assert {"itemName", "userId", "type", "tagName"} <= set(changed)


def test_a_member_called_like_a_word_of_the_case_is_told_once() -> None:
    op = msgspec.structs.replace(
        NESTED_OP, schema={"properties": {"type": {"type": "string"}, "name": {"minLength": 1}}}
    )
    e = example(op, answer(["type wrong type", "name: no type", "empty"], [{"type": 1}, {"name": ""}, {"type": 2}]))
    told = set()
    for v in offered(e, "renamed_members", 20):
        new, cases = taken_apart(v.messages, v.completion)
        first, second = new.schema["properties"]
        assert [c["name"] for c in cases] == [f"{first} wrong type", f"{second}: no type", "empty"]
        told.add(first)
    assert len(told) > 1


def test_other_orders_change_nothing_else(real: list[Example]) -> None:
    seen = 0
    for e in real:
        op, cases = taken_apart(e.messages, e.completion)
        for v in offered(e, "reordered"):
            new, new_cases = taken_apart(v.messages, v.completion)
            plain = rebuilt(op.schema, lambda s: {**s, "required": sorted(s["required"])} if "required" in s else s)
            assert plain == rebuilt(
                new.schema, lambda s: {**s, "required": sorted(s["required"])} if "required" in s else s
            )
            assert sorted(map(str, (c["name"] for c in cases))) == sorted(c["name"] for c in new_cases)
            assert {c["name"]: c["payload"] for c in cases} == {c["name"]: c["payload"] for c in new_cases}
            order = list(new.schema["properties"])
            for case in new_cases:
                keys = [order.index(k) for k in case["payload"]] if isinstance(case["payload"], dict) else []
                assert keys == sorted(keys), "members of a payload stand in the schema's order"
            seen += list(op.schema["properties"]) != order
    assert seen > 100


def test_cases_follow_the_members_in_their_new_order() -> None:
    members = ["b", "a", "d", "c"]
    op = msgspec.structs.replace(NESTED_OP, schema={"properties": {m: {"type": "string"} for m in members}})
    e = example(
        op, answer([f"{m} wrong type" for m in members] + ["body"], [*({m: 1} for m in members), {"b": 1, "c": 2}])
    )
    in_order = example(op, answer([f"{m} wrong type" for m in members], [{m: 1} for m in members]))
    for v in offered(in_order, "reordered", 8):
        new, cases = taken_apart(v.messages, v.completion)
        assert [c["name"].split()[0] for c in cases] == list(new.schema["properties"])
    for v in offered(e, "reordered", 8):
        names = [c["name"] for c in taken_apart(v.messages, v.completion)[1]]
        assert names == [c["name"] for c in taken_apart(e.messages, e.completion)[1]], "it had another order of its own"


@given(seed=st.integers(0, 10_000))
def test_new_names_never_make_two_members_one(seed: int) -> None:
    old = ["itemId", "item_id", "ItemId", "item-id", "itemKey", "names", "name", "$odd"]
    names = new_names(old, {"title", "labels"}, random.Random(seed))
    after = [names.get(n, n) for n in old]
    assert len(set(after)) == len(old) and not {"title", "labels", *old} & set(names.values())


@given(seed=st.integers(0, 10_000))
def test_payloads_follow_a_bound_by_the_same_distance(seed: int) -> None:
    schema = {
        "properties": {
            "s": {"type": "string", "minLength": 3, "maxLength": 9},
            "n": {"type": "integer", "minimum": 4, "maximum": 40},
            "l": {"type": "array", "minItems": 2, "maxItems": 4},
        }
    }
    kept: dict[str, Any] = {"s": "abcd", "n": 7, "l": [1, 2, 3]}
    broken: dict[str, Any] = {"s": "a" * 11, "n": 3, "l": [1] * 5}
    new, (still_kept, still_broken) = edited(schema, [kept, broken], random.Random(seed))
    assert compiled(new).is_valid(still_kept)
    for name, key, distance in (("s", "maxLength", 2), ("n", "minimum", -1), ("l", "maxItems", 1)):
        value = still_broken[name]
        if key in new["properties"][name]:
            assert (value if name == "n" else len(value)) - new["properties"][name][key] == distance


def test_other_constraints_are_broken_in_the_same_way(real: list[Example]) -> None:
    followed = 0
    for e in real:
        op, cases = taken_apart(e.messages, e.completion)
        for v in offered(e, "constraints"):
            new, new_cases = taken_apart(v.messages, v.completion)
            assert new.schema != op.schema and list(new.schema["properties"]) == list(op.schema["properties"])
            for old_case, new_case in zip(cases, new_cases, strict=True):
                before = signature(op.schema, old_case["payload"])
                assert signature(new.schema, new_case["payload"]) == before
            followed += [c["payload"] for c in cases] != [c["payload"] for c in new_cases]
    assert followed > 30, "some payloads had to follow"


def test_bounds_that_a_case_could_name_are_left_alone() -> None:
    op = msgspec.structs.replace(NESTED_OP, schema={"properties": {"n": {"type": "integer", "minimum": 3}}})
    assert offered(example(op, answer(["n below its least"], [{"n": 2}])), "constraints")
    assert not offered(example(op, answer(["n below 3"], [{"n": 2}])), "constraints")


def test_other_words_ask_the_same(real: list[Example]) -> None:
    for e in real[:30]:
        for v in offered(e, "reworded"):
            assert parsed(v.messages) == parsed(e.messages)
            assert v.completion == e.completion and v.messages != e.messages
            assert [m["role"] for m in v.messages] == ["system", "user"]
    own = [{"role": "system", "content": "Our own words."}, real[0].messages[1]]
    found = [v for v in islice(task.variants(own, real[0].completion, random.Random(1)), 20) if v.kind == "reworded"]
    assert found and all(v.messages[0] == own[0] for v in found), "a team's own sentence stays"


def test_another_operation_is_of_the_same_source(real: list[Example]) -> None:
    for e in real:
        for v in offered(e, "renamed_operation"):
            old, new = parsed(e.messages), parsed(v.messages)
            assert (new.source, new.schema, new.method) == (old.source, old.schema, old.method)
            assert (new.id, new.path) != (old.id, old.path)
            assert [p for p in old.path.split("/") if p.startswith("{")] == [
                p for p in new.path.split("/") if p.startswith("{")
            ]


def test_conversations_have_no_variants(real: list[Example]) -> None:
    e = real[0]
    turns = [*e.messages, {"role": "assistant", "content": e.completion}, e.messages[-1]]
    assert list(islice(task.variants(turns, e.completion, random.Random(1)), 3)) == []


_SCHEMAS = st.recursive(
    st.sampled_from([{"type": "string"}, {"type": "integer", "minimum": 1}, {"enum": ["a", "b"]}]),
    lambda inner: st.builds(
        lambda members, kind: (
            {"type": "object", "properties": members, "required": sorted(members)[:1]}
            if kind == "object"
            else {"type": "array", "items": {"type": "object", "properties": members}}
            if kind == "array"
            else {"type": "object", "additionalProperties": {"type": "object", "properties": members}}
        ),
        st.dictionaries(st.sampled_from(["id", "userName", "Tags", "next_token", "x-y", "$odd"]), inner, max_size=3),
        st.sampled_from(["object", "array", "map"]),
    ),
    max_leaves=8,
)
_VALUES = st.recursive(
    st.sampled_from([1, "a", None]),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(st.sampled_from(["id", "userName", "Tags", "next_token", "x-y", "more"]), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(schema=_SCHEMAS, value=_VALUES, seed=st.integers(0, 99))
@settings(max_examples=150, deadline=None)
def test_any_payload_breaks_after_renaming_what_it_broke(schema: Any, value: Any, seed: int) -> None:
    """Renaming is an isomorphism: rules and their number stay, and renaming back gives the payload back."""
    names = {n: f"{n}-{seed}" for n in member_names(schema)}

    def change(sub: dict[str, Any]) -> dict[str, Any]:
        sub = {**sub, "properties": {names[k]: v for k, v in sub["properties"].items()}} if "properties" in sub else sub
        return {**sub, "required": [names[r] for r in sub["required"]]} if "required" in sub else sub

    new = rebuilt(schema, change)
    there = reshaped(value, schema, names)
    before, after = (
        sorted((e.validator, len(e.absolute_path)) for e in jsonschema.Draft202012Validator(s).iter_errors(v))
        for s, v in ((schema, value), (new, there))
    )
    assert before == after
    assert reshaped(there, new, {n: o for o, n in names.items()}) == value
