"""What the data loop is told of an agent's task."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pawl.errors import SourceError
from pawl.fleet.spec import TaskSourceSpec
from pawl.qe.functional_negative import oracle, reference
from pawl.qe.operations import sources
from pawl.qe.operations.answers import MAX_COMPLETION_BYTES
from pawl.qe.operations.operation import Operation
from pawl.qe.operations.prompt import parsed
from pawl.qe.operations.wording import HEADS
from pawl.qe.task import Task
from pawl.qe.tasks import task_of

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "minLength": 2, "pattern": "^[a-z]*$"},
        "kind": {"enum": ["x1", "x2"]},
        "count": {"type": "integer", "minimum": 5},
        "either": {"anyOf": [{"type": "integer"}, {"type": "boolean"}]},
    },
    "required": ["name", "count"],
    "additionalProperties": False,
}
OP = Operation(id="shop.AddItem", source="shop", method="POST", path="/items", schema=SCHEMA)
ASKED = oracle.messages(OP)
NO_NAME, NO_COUNT = {"count": 5}, {"name": "aa"}
WRONG_NAME, WRONG_COUNT = {"name": 1, "count": 5}, {"name": "aa", "count": "a"}
SHORT, PATTERN = {"name": "a", "count": 5}, {"name": "AA", "count": 5}
LOW, ENUM = {"name": "aa", "count": 4}, {**NO_COUNT, "count": 5, "kind": "x"}
MORE, EITHER = {"name": "aa", "count": 5, "more": 1}, {"name": "aa", "count": 5, "either": "a"}

task = task_of("functional-negative")
TASKS = [task, task_of("generic")]


def answer(*payloads: Any, status: int = 400) -> str:
    return orjson.dumps(
        {"test_cases": [{"name": f"case {i}", "payload": p, "expected_status": status} for i, p in enumerate(payloads)]}
    ).decode()


def test_a_spec_names_its_task() -> None:
    assert task_of("functional-negative").source_of(ASKED) == "shop"
    assert task_of("generic").source_of(ASKED) is None
    with pytest.raises(SourceError, match=r"functional-negative, .*, generic, or module:Class"):
        task_of("poetry")


@pytest.mark.parametrize("known", TASKS)
@given(
    asked=st.lists(
        st.fixed_dictionaries({"role": st.sampled_from(["user", "system", "assistant"])})
        | st.fixed_dictionaries(
            {
                "role": st.just("user"),
                "content": st.none()
                | st.text()
                | st.lists(st.just({"text": "POST / a.b\n{}"}))
                | st.just("GET / a.b\n{"),
            }
        ),
        max_size=3,
    ),
    text=st.text() | st.just('{"test_cases":[{"name":"a","payload":1,"expected_status":400}]}'),
)
def test_foreign_prompts_and_answers_are_no_error(known: Task, asked: Any, text: str) -> None:
    grade = known.grade(asked, text)
    assert grade is None or 0 <= grade.score <= 1
    assert isinstance(known.scenario_of(asked, text) + known.cluster_key(asked, text) + known.content_of(asked), str)
    known.conforms(text)
    known.source_of(asked)
    next(known.variants(asked, text, random.Random(1)), None)


def test_without_an_oracle_nothing_is_claimed() -> None:
    generic = task_of("generic")
    told = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "What is flaky?"}]
    assert generic.grade(told, "x") is None and generic.scenario_of(told, "x") == "" == generic.cluster_key(told, "x")
    assert generic.content_of(told) == "What is flaky?"
    assert generic.conforms("x") and not generic.conforms(" ")
    assert list(generic.variants(told, "x", random.Random(1))) == []


@pytest.mark.parametrize(
    ("payloads", "scenario"),
    [
        ((NO_NAME, NO_COUNT, WRONG_NAME), "missing"),
        ((NO_NAME, WRONG_COUNT, WRONG_NAME), "type"),
        ((NO_NAME, WRONG_COUNT), "missing"),
        ((NO_NAME, WRONG_COUNT, PATTERN), "pattern"),
        ((SHORT, PATTERN, WRONG_NAME), "length"),
        ((SHORT, PATTERN, LOW), "range"),
        ((ENUM, LOW, LOW), "enum"),
        ((ENUM, EITHER, LOW), "combination"),
        ((MORE, ENUM, EITHER), "unexpected"),
        (({"name": "aa", "count": 5},), ""),
    ],
)
def test_the_rarest_rule_broken_names_the_class(payloads: tuple[Any, ...], scenario: str) -> None:
    assert task.scenario_of(ASKED, answer(*payloads)) == scenario
    assert task.scenario_of(ASKED, answer(*reversed(payloads))) == scenario


def test_an_answer_that_breaks_nothing_known_has_no_class() -> None:
    assert task.scenario_of(ASKED, "no JSON") == "" == task.scenario_of([], answer(NO_NAME))


def test_classes_of_real_answers_are_several_and_none_dominates() -> None:
    some = random.Random(1).sample(sources.load(TaskSourceSpec()), 300)
    found = Counter(
        task.scenario_of(oracle.messages(o), reference.answer(o.schema, random.Random(o.id), 0.0)) for o in some
    )
    assert 4 <= len(found) <= 8 and "" not in found
    assert max(found.values()) / 300 < 0.5 and min(found.values()) / 300 > 0.01


def test_what_cannot_be_graded_is_not_zero() -> None:
    good, bad = task.grade(ASKED, answer(NO_NAME, NO_COUNT, LOW)), task.grade(ASKED, "no JSON")
    assert good is not None and good.score == 1.0 == good.metrics["validity"] and good.conforms and not good.problem
    assert bad is not None and bad.score == 0.0 and not bad.conforms and bad.problem.startswith("not JSON")
    assert task.grade([{"role": "user", "content": "Hello"}], answer(NO_NAME)) is None


def covered(schema: dict[str, Any], *payloads: Any) -> float:
    asked = oracle.messages(Operation(id="a.b", source="a", method="POST", path="/", schema=schema))
    found = task.grade(asked, answer(*payloads))
    assert found is not None and found.score == 1.0
    return found.metrics["class_coverage"]


def test_classes_are_covered_as_far_as_the_schema_lets_one() -> None:
    plain = {"type": "object", "properties": {n: {"type": "string"} for n in "abc"}}
    assert covered(plain, {"a": 1}, {"b": 1}, {"c": 1}) == 1.0, "nothing but types can be wrong"
    assert covered(plain | {"required": ["a"]}, {"a": "x", "b": 1}, {"a": "x", "c": 1}, {"b": "x"}) == 1.0
    several = plain | {"required": ["a"]}
    several["properties"] = {**plain["properties"], "a": {"type": "string", "minLength": 1, "enum": ["x"]}}
    assert covered(several, {"a": "x", "b": 1}, {"a": "x", "c": 1}, {"a": "x", "b": [], "c": []}) == pytest.approx(
        1 / 3
    )
    assert covered(several, {"a": "x", "b": 1}, {}, {"a": "y"}) == 1.0


def test_only_answers_of_the_response_schema_conform() -> None:
    good = answer(NO_NAME, NO_COUNT, LOW)
    assert task.conforms(good)
    assert not task.conforms(good[:-1]) and not task.conforms(f"Here you are: {good}")
    assert not task.conforms(answer(NO_NAME)) and not task.conforms(answer(NO_NAME, NO_COUNT, LOW, status=200))
    assert not task.conforms(good.replace(":", ":" + " " * MAX_COMPLETION_BYTES, 1))


def test_content_is_the_task_alone() -> None:
    twin = oracle.messages(Operation(id="store.AddItem", source="store", method="POST", path="/items", schema=SCHEMA))
    other = oracle.messages(Operation(id="shop.AddItem", source="shop", method="POST", path="/goods", schema=SCHEMA))
    assert task.content_of(ASKED) == task.content_of(twin) == task.content_of(ASKED[1:])
    assert task.content_of(ASKED) != task.content_of(other)
    assert oracle.SYSTEM not in task.content_of(ASKED) and '"count"' in task.content_of(ASKED)
    assert task.content_of([{"role": "user", "content": "Hello"}]) == "Hello"


@pytest.mark.parametrize("head", HEADS)
def test_every_form_of_the_head_line_names_the_operation(head: str) -> None:
    text = head.format(method="GET", path="/a/{B+}?c=d", id="shop.AddItem") + "\n{}"
    op = parsed([{"role": "user", "content": text}])
    assert (op.method, op.path, op.id, op.source) == ("GET", "/a/{B+}?c=d", "shop.AddItem", "shop")


@pytest.mark.parametrize(
    ("completion", "key"),
    [
        (answer(NO_NAME, NO_COUNT, LOW), ""),
        ("sorry", "not_json"),
        (answer(NO_NAME)[:-5], "not_json"),
        (f"Here you are: {answer(NO_NAME)}", "prose_around_json"),
        ("{" + " " * MAX_COMPLETION_BYTES, "too_long"),
        ('{"cases":[]}', "no_test_cases"),
        (answer(NO_NAME, NO_COUNT), "too_few"),
        (answer(NO_NAME, {"name": "aa", "count": 5}, LOW), "wrongly_accepted"),
        (answer(NO_NAME, NO_NAME, LOW), "duplicate"),
        (answer(NO_NAME, NO_COUNT, LOW, status=200), "bad_status"),
        (answer({"name": "aa", "count": 5}, NO_NAME, NO_NAME), "wrongly_accepted"),
        (answer({"name": "aa", "count": 5}, NO_NAME, NO_NAME, NO_NAME), "duplicate"),
        ('{"test_cases":[1,2]}', "malformed"),
    ],
)
def test_failures_are_told_apart(completion: str, key: str) -> None:
    assert task.cluster_key(ASKED, completion) == key


def test_a_failure_of_another_task_is_nobodys() -> None:
    assert task.cluster_key([{"role": "user", "content": "Hello"}], "sorry") == ""
