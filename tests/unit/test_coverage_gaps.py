"""`coverage-analysis`: the gaps and the calls are held against real runs."""

from __future__ import annotations

import os
import random
import time
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pawl.fleet.source import TaskSourceSpec
from pawl.qe.coverage_gaps import oracle, prompt
from pawl.qe.coverage_gaps.gaps import f1, reach, reach_of_all
from pawl.qe.coverage_gaps.task import CoverageAnalysis
from pawl.qe.item import Grade
from pawl.qe.python_code.snippet import Snippet

TASK = CoverageAnalysis()
ROWS = TaskSourceSpec(kind="jsonl", location=str(Path(__file__).parents[1] / "data" / "python_problems.jsonl"))
CODE = """def size(n):
    if n < 0:
        raise ValueError("negative")
    if n < 10:
        return "small"
    for digit in str(n):
        if digit == "7":
            return "lucky"
    return "large" if n < 1000 else "huge"
"""
TESTS = ('assert size(3) == "small"',)
SNIPPET = Snippet(source="a.b", entry="size", code=CODE, about="Names the\nsize.")
PROMPT = prompt.messages(prompt.Asked(snippet=SNIPPET, tests=TESTS), (2, 4, 5))
LINES = [3, 6, 7, 8, 9]
BRANCHES = ["2:true", "4:false", "6:true", "6:false", "7:true", "7:false", "9:true", "9:false"]
CALLS = ["size(-1)", "size(17)", "size(11)", "size(1111)"]


def answer(lines: Any = LINES, branches: Any = BRANCHES, calls: Any = CALLS) -> str:
    return orjson.dumps({"lines": lines, "branches": branches, "calls": calls}).decode()


def graded(text: str) -> Grade:
    found = TASK.grade(PROMPT, text)
    assert found is not None
    return found


def test_the_gaps_are_what_the_tests_do_not_run() -> None:
    seen = reach(CODE, TESTS)
    assert seen.lines == {2, 4, 5} and seen.branches == {"2:false", "4:true"}
    assert seen.gaps == {*(f"l{n}" for n in LINES), *BRANCHES}
    full = reach(CODE, (*TESTS, *CALLS))
    assert full.gaps == frozenset()


def test_naming_and_closing_all_gaps_is_full_marks() -> None:
    grade = graded(answer())
    assert (grade.score, grade.problem, grade.conforms) == (1.0, "", True)
    assert TASK.cluster_key(PROMPT, answer()) == ""


@pytest.mark.parametrize(
    ("text", "failure", "low", "high"),
    [
        (answer(calls=[]), "does_not_close", 0.5, 0.5),
        (answer(calls=["size(-1)"]), "does_not_close", 0.5, 0.8),
        (answer(lines=[], branches=[]), "misses_gaps", 0.5, 0.5),
        (answer(lines=list(range(1, 60))), "invents_gaps", 0.6, 0.9),
        (answer(lines=[2, 4, 5], branches=["2:false", "4:true"], calls=["size(3)"]), "misses_gaps", 0, 0),
        (answer(calls=["print(size(-1))", "size(int('-1'))", "size((lambda: 1)())"]), "bad_calls", 0.5, 0.5),
        (answer(calls=["size(17", "size(-1); size(17)", "sizes(3)"]), "bad_calls", 0.5, 0.5),
        (answer(calls=["size()", "size(1, 2)", "size('x')"]), "does_not_close", 0.5, 0.5),
        (answer(calls=["size(1)"] * 9), "wrong_form", 0, 0),
        (answer(branches=["2:yes"]), "wrong_form", 0, 0),
        ("{", "not_json", 0, 0),
        ("Well: " + answer(), "prose_around_json", 0, 0),
    ],
)
def test_failures_have_names(text: str, failure: str, low: float, high: float) -> None:
    grade = graded(text)
    assert TASK.cluster_key(PROMPT, text) == failure and grade.problem.startswith(failure)
    assert low - 1e-9 <= grade.score <= high + 1e-9


def test_a_gap_out_of_reach_is_to_be_named_and_not_to_be_closed() -> None:
    code = "def f(n):\n    m = n * n\n    if m < 0:\n        return 'never'\n"
    code += "    if n > 3:\n        return 'many'\n    return 'few'\n"
    asked = prompt.messages(
        prompt.Asked(snippet=Snippet(source="a", entry="f", code=code), tests=("assert f(1) == 'few'",)), (2, 3, 5, 7)
    )
    text = answer([4, 6], ["3:true", "5:true"], ["f(4)"])
    grade = TASK.grade(asked, text)
    assert grade is not None and grade.score == 1.0 and grade.metrics["closed"] == 1.0


def test_calls_that_hang_or_eat_memory_reach_what_they_reach_and_end() -> None:
    code = "def f(n):\n    if n > 5:\n        while n:\n            n += 1\n"
    code += "    if n == 5:\n        return [0] * 10 ** 11\n    return 0\n"
    began = time.monotonic()
    seen, after = reach_of_all([(code, ("f(9)", "f(5)")), (code, ("f(0)",))])
    assert {3, 4, 6} <= seen.lines and after.lines == {2, 5, 7} and time.monotonic() - began < 15


def test_a_prompt_is_read_back() -> None:
    asked = prompt.parsed(PROMPT)
    assert asked is not None and asked.snippet.code == CODE and asked.tests == TESTS
    assert (asked.snippet.source, asked.snippet.entry) == ("a.b", "size") and TASK.source_of(PROMPT) == "a.b"
    assert PROMPT[1]["content"].endswith("# lines that ran: 2, 4-5")
    assert "def size" in TASK.content_of(PROMPT) and TASK.scenario_of(PROMPT, "") == "errors"
    broken = [{"role": "user", "content": PROMPT[1]["content"].replace(" 2| ", "")}]
    assert prompt.parsed(broken) is None and TASK.grade(broken, answer()) is None


@given(st.sets(st.integers(1, 60)))
def test_spans_say_which_numbers_there_are(numbers: set[int]) -> None:
    read: set[int] = set()
    for part in prompt.spans(numbers).split(", "):
        if part != "none":
            first, _, last = part.partition("-")
            read |= set(range(int(first), int(last or first) + 1))
    assert read == numbers


@given(st.frozensets(st.sampled_from("abcdef")), st.frozensets(st.sampled_from("abcdef")))
def test_f1_is_one_where_all_is_right_and_nought_where_nothing_is(
    found: frozenset[str], wanted: frozenset[str]
) -> None:
    value = f1(found, wanted)
    assert 0 <= value <= 1 and value == f1(wanted, found)
    assert (value == 1) == (found == wanted)
    assert (value == 0) == (not found & wanted and bool(found | wanted))


def test_the_score_is_half_and_half() -> None:
    assert oracle.score_of(1, 1) == 1 and oracle.score_of(1, 0) == oracle.score_of(0, 1) == 0.5


def test_rows_are_asked_with_the_first_of_their_tests() -> None:
    items = TASK.items(ROWS)
    # The first test of `between` and of the loops leaves nothing out.
    assert [i.id for i in items] == ["python_problems-000.is_leap", "python_problems-004.size"]
    for item in items:
        asked = prompt.parsed(item.messages)
        assert asked is not None and list(asked.tests) == item.truth["assertions"][:1]
        text = TASK.reference(item, random.Random(1))
        assert text is not None
        grade = TASK.grade(item.messages, text, item.truth)
        assert grade is not None and grade.score == 1.0, grade


@pytest.mark.skipif(not os.environ.get("PAWL_DATA_DIR"), reason="PAWL_DATA_DIR names no folder with mbpp.jsonl.gz")
def test_references_of_real_problems_are_right() -> None:
    location = str(Path(os.environ["PAWL_DATA_DIR"]) / "mbpp.jsonl.gz")
    items = TASK.items(TaskSourceSpec(kind="jsonl", location=location))
    assert len(items) > 100 and len({i.source for i in items}) > 20
    without = 0
    for item in random.Random(5).sample(list(items), 12):
        text = TASK.reference(item, random.Random(1))
        without += text is None
        if text is not None:
            grade = TASK.grade(item.messages, text, item.truth)
            assert grade is not None and grade.score >= 0.99, item.id
    assert without <= 2
