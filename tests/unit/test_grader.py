"""The oracle: what it counts as right, and what cannot fool or stall it."""

from __future__ import annotations

import gzip
import os
import random
import socket
import threading
import time
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pawl.errors import SourceError
from pawl.qe.functional_negative import oracle as task
from pawl.qe.functional_negative import reference
from pawl.qe.operations.answers import MAX_COMPLETION_BYTES
from pawl.qe.operations.openapi_schema import resolve
from pawl.qe.operations.operation import Operation
from pawl.qe.operations.prompt import parsed
from pawl.qe.operations.validator import compiled

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "minLength": 1},
        "size": {"type": "integer", "minimum": 1},
        "tags": {"type": "array", "items": {"type": "string"}},
    },
    "required": ["name", "size"],
}
MISSING = {"name": "missing name", "payload": {"size": 1}, "expected_status": 400}
EMPTY = {"name": "empty name", "payload": {"name": "", "size": 1}, "expected_status": 422}
LOW = {"name": "size too low", "payload": {"name": "a", "size": 0}, "expected_status": 400}


def answer(*cases: Any) -> str:
    return orjson.dumps({"test_cases": list(cases)}).decode()


def outcomes(*cases: Any) -> list[str]:
    return [c.outcome for c in task.grade(SCHEMA, answer(*cases)).cases]


def test_three_right_and_distinct_cases_are_worth_one() -> None:
    grade = task.grade(SCHEMA, answer(MISSING, EMPTY, LOW))
    assert grade.score == 1.0 and grade.valid_json and not grade.problem
    assert len({c.signature for c in grade.cases}) == 3


def test_fewer_than_asked_and_extra_wrong_ones_cost() -> None:
    assert task.grade(SCHEMA, answer(MISSING)).score == pytest.approx(1 / 3)
    valid = {"name": "fine", "payload": {"name": "a", "size": 1}, "expected_status": 400}
    assert task.grade(SCHEMA, answer(MISSING, EMPTY, LOW, valid)).score == pytest.approx(3 / 4)


@pytest.mark.parametrize("status", [200, 404, 500, 400.0, "400", True, None])
def test_only_sensible_statuses_count(status: Any) -> None:
    assert outcomes({**MISSING, "expected_status": status}) == ["bad_status"]


def test_each_outcome_has_its_name() -> None:
    valid = {"name": "fine", "payload": {"name": "a", "size": 1}, "expected_status": 400}
    found = outcomes(valid, MISSING, {**MISSING, "name": "again"}, {"name": "no payload"}, 7)
    assert found == ["wrongly_accepted", "rejected_as_expected", "duplicate", "malformed", "malformed"]


def test_the_same_rule_at_two_members_is_distinct_and_at_two_indices_is_not() -> None:
    no_size = {**MISSING, "payload": {"name": "a"}}
    assert outcomes(MISSING, no_size) == ["rejected_as_expected"] * 2
    first, second = ({**MISSING, "payload": {"name": "a", "size": 1, "tags": t}} for t in ([1], ["x", 1]))
    assert outcomes(first, second) == ["rejected_as_expected", "duplicate"]


@pytest.mark.parametrize("text", ["", "no", "```json\n{}\n```", '{"test_cases":[', answer(MISSING)[:-1], "\ud800"])
def test_what_is_not_json_is_worth_nothing(text: str) -> None:
    assert task.grade(SCHEMA, text).score == 0.0 and not task.grade(SCHEMA, text).valid_json


@pytest.mark.parametrize("text", ["[]", "1", "{}", '{"test_cases":{}}', '{"test_cases":[]}'])
def test_json_of_another_form_is_worth_nothing(text: str) -> None:
    assert task.grade(SCHEMA, text).score == 0.0 and task.grade(SCHEMA, text).valid_json


def test_too_long_an_answer_is_not_parsed() -> None:
    grade = task.grade(SCHEMA, answer({**MISSING, "name": "x" * MAX_COMPLETION_BYTES}))
    assert grade.score == 0.0 and "longer" in grade.problem


@pytest.mark.parametrize("wrap", [lambda s: s, lambda s: {"anyOf": [s, {"type": "integer"}]}])
def test_a_case_that_the_validator_cannot_decide_is_not_right(wrap: Any) -> None:
    schema = {"properties": {"x": wrap({"pattern": r"^(?=a)((a|aa)+)\1c$"})}}
    case = {"name": "evil", "payload": {"x": "a" * 60}, "expected_status": 400}
    started = time.process_time()
    grade = task.grade(schema, answer(case, case, case))
    assert [c.outcome for c in grade.cases] == ["undecided"] * 3 and grade.score == 0
    assert time.process_time() - started < 2
    # A payload that breaks another rule as well is decided.
    schema["required"] = ["y"]  # type: ignore[assignment]
    assert task.grade(schema, answer(case)).cases[0].outcome == "rejected_as_expected"


@pytest.mark.parametrize("depth", [300, 900, 5000])
@pytest.mark.parametrize("schema", [{"type": "object"}, {"items": {"uniqueItems": True}}, {"const": []}])
def test_deep_payloads_are_no_crash(depth: int, schema: dict[str, Any]) -> None:
    deep = '{"test_cases":[{"name":"deep","payload":' + "[" * depth + "]" * depth + ',"expected_status":400}]}'
    grade = task.grade(schema, deep)
    assert 0 <= grade.score <= 1 / 3
    assert grade.valid_json == (depth < 1000), "the parser's own bound"


def test_many_cases_are_bounded_and_diluted() -> None:
    grade = task.grade(SCHEMA, answer(*[MISSING, EMPTY, LOW] * 100))
    assert grade.score == pytest.approx(3 / 300) and len(grade.cases) < 20


@given(st.text(max_size=200) | st.binary(max_size=200).map(lambda b: b.decode("latin1")))
def test_any_text_gets_a_score(text: str) -> None:
    assert 0 <= task.grade(SCHEMA, text).score <= 1


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.text("ab", max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["name", "size", "tags"]), inner),
    max_leaves=5,
)


@given(st.lists(JSON, min_size=1, max_size=6))
def test_right_cases_are_really_rejected_and_differ(payloads: list[Any]) -> None:
    grade = task.grade(SCHEMA, answer(*[{"name": "n", "payload": p, "expected_status": 400} for p in payloads]))
    validator = compiled(SCHEMA)
    right = [(c, p) for c, p in zip(grade.cases, payloads, strict=True) if c.outcome == "rejected_as_expected"]
    assert not any(validator.is_valid(p) for _, p in right)
    assert len({c.signature for c, _ in right}) == len(right)
    assert grade.score == pytest.approx(len(right) / max(3, len(payloads)))


@given(st.permutations([MISSING, EMPTY, LOW, {**LOW, "name": "again"}]))
def test_the_order_of_cases_does_not_matter(cases: list[Any]) -> None:
    assert task.grade(SCHEMA, answer(*cases)).score == pytest.approx(3 / 4)


OP = Operation(id="shop.Order", source="shop", method="POST", path="/orders/{id}", schema=SCHEMA)


def test_prompt_round_trip_in_both_content_forms() -> None:
    chat = task.messages(OP)
    assert parsed(chat) == OP
    parts = [chat[0], {"role": "user", "content": [{"type": "text", "text": chat[1]["content"]}]}]
    assert parsed(parts) == OP
    assert task.grade(parsed(chat).schema, answer(MISSING, EMPTY, LOW)).score == 1.0
    assert sum(len(m["content"]) for m in chat) < 420, "prompts must stay short: a small model reads them"


@pytest.mark.parametrize(
    "text", ["", "hello", "POST /x\n{}", "POST / a.B\nnot json", "POST / a.B\n[]", 'POST / a.B\n{"type":"strin"}']
)
def test_a_foreign_prompt_has_no_score(text: str) -> None:
    with pytest.raises(SourceError):
        task.grade(parsed([{"role": "user", "content": text}]).schema, answer(MISSING))


def test_a_prompt_cannot_make_the_grader_fetch() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.3)
        callers = []

        def listen() -> None:
            try:
                caller, _ = server.accept()
            except TimeoutError:
                return
            callers.append(caller)
            caller.close()

        thread = threading.Thread(target=listen)
        thread.start()
        prompt = f'POST / a.B\n{{"$ref":"http://127.0.0.1:{server.getsockname()[1]}/x"}}'
        with pytest.raises(SourceError, match="JSON Schema"):
            task.grade(parsed([{"role": "user", "content": prompt}]).schema, answer(MISSING))
        thread.join()
    assert callers == []


def test_response_schema_allows_the_reference_and_forbids_its_faults() -> None:
    validator = compiled(task.response_schema())
    assert validator.is_valid(orjson.loads(answer(MISSING, EMPTY, LOW)))
    assert not validator.is_valid(orjson.loads(answer(MISSING, EMPTY)))
    assert not validator.is_valid(orjson.loads(answer(MISSING, EMPTY, {**LOW, "expected_status": 200})))


@pytest.mark.skipif("PAWL_DATA_DIR" not in os.environ, reason="PAWL_DATA_DIR holds no openapi_bodies.jsonl.gz")
def test_real_openapi_bodies_can_all_be_solved() -> None:
    path = Path(os.environ["PAWL_DATA_DIR"]) / "openapi_bodies.jsonl.gz"
    if not path.exists():
        pytest.skip(f"{path} is missing")
    rng = random.Random(5)
    with gzip.open(path) as file:
        rows = [orjson.loads(line) for line in file]
    scores = []
    for row in rows[::3]:
        schema = resolve({}, row["schema"])
        scores.append(task.grade(schema, reference.answer(schema, rng, 0.0)).score)
    assert len(scores) > 1000 and min(scores) == 1.0
