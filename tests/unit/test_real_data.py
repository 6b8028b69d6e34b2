"""The fleet's oracles on real data: right answers score high, wrong ones low, and none of it is of our own making.

The data are those of PAWL_DATA_DIR, loaded as a team loads its own: by the source kinds of the tasks.
"""

from __future__ import annotations

import ast
import json
import os
import random
import statistics
from collections import Counter
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import msgspec
import pytest

from benchmarks.real_rows import NONE, REAL, changes, openapi, source
from benchmarks.real_rules import known_answer, rules
from benchmarks.real_tasks import claims, graded, measure
from pawl.fleet.source import TaskSourceSpec
from pawl.qe.functional_negative.task import FunctionalNegative
from pawl.qe.functional_positive.task import FunctionalPositive
from pawl.qe.item import CannotGrade, Item
from pawl.qe.judged_task import compact
from pawl.qe.python_code.inside.mutants import mutants
from pawl.qe.python_code.observing import observation
from pawl.qe.task import Task, user_text
from pawl.qe.tasks import names, task_of
from pawl.qe.unit_tests import prompt
from pawl.sandbox import best

SLOW = {"unit-test-generation", "coverage-analysis"}


class Expected(NamedTuple):
    """Of the whole data set: items, sources, and how high right and wrong answers may score on average."""

    items: int
    sources: int
    right: float
    wrong: float


EXPECTED = {
    "functional-negative": Expected(2001, 34, 1.0, 0.0),
    "functional-positive": Expected(1853, 34, 1.0, 0.0),
    "spec-analyzer": Expected(1315, 33, 1.0, 0.35),
    "test-validator": Expected(2001, 34, 1.0, 0.0),
    "unit-test-generation": Expected(474, 49, 0.99, 0.0),
    "coverage-analysis": Expected(193, 48, 0.99, 0.1),
    "flaky-detection": Expected(2276, 12, 1.0, 0.0),
    "security-review": Expected(520, 114, 1.0, 0.0),
    "security-auth": Expected(26, 7, 1.0, 0.0),
    "performance-analyzer": Expected(182, 13, 1.0, 0.15),
    "code-review": Expected(523, 115, 1.0, 0.01),
}


@cache
def items_of(name: str) -> Sequence[Item]:
    folder = os.environ.get("PAWL_DATA_DIR")
    if not folder:
        pytest.skip("skipped: PAWL_DATA_DIR is not set")
    with TemporaryDirectory() as scratch:
        spec = source(name, Path(folder), Path(scratch))
        if spec is None:
            pytest.skip(f"skipped: no {REAL[name].file} in {folder}")
        return task_of(name).items(spec)


def some(name: str, n: int) -> list[Item]:
    """The same ones each time, for tasks whose oracle runs code; else all."""
    if name not in SLOW:
        return list(items_of(name))
    try:
        best()
    except CannotGrade as error:
        pytest.skip(f"skipped: {error}")
    return random.Random(3).sample(list(items_of(name)), n)


def answers_of(name: str, items: Sequence[Item]) -> dict[str, str]:
    """The right answer of each item that has one, by its id."""
    task = task_of(name)
    found = {i.id: a for i in items if (a := known_answer(task, i)) is not None}
    assert len(found) >= 0.8 * len(items)
    return found


@pytest.mark.parametrize("name", REAL)
def test_real_items_load_by_the_tasks_own_kinds(name: str) -> None:
    items, expected = items_of(name), EXPECTED[name]
    assert (len(items), len({i.source for i in items})) == expected[:2]
    assert len({i.id for i in items}) == len(items) and list(items) == sorted(items, key=lambda i: i.id)
    task = task_of(name)
    assert all(task.source_of(i.messages) == i.source for i in items)
    assert max(len(user_text(i.messages)) for i in items) < 4000


@pytest.mark.parametrize("name", REAL)
def test_right_answers_score_high(name: str) -> None:
    items = some(name, 8)
    right = answers_of(name, items)
    asked = [i for i in items if i.id in right]
    grades = graded(task_of(name), asked, [right[i.id] for i in asked])
    assert all(g.conforms for g in grades)
    assert min(g.score for g in grades) >= EXPECTED[name].right


def _other_kind(task: Task) -> Callable[[Sequence[Item]], list[str | None]]:
    """Right answers of the opposite task: what must be taken given as what must be refused, and the reverse."""

    def wrong(items: Sequence[Item]) -> list[str | None]:
        made: list[str | None] = []
        for item in items:
            told = known_answer(task, item)
            cases = json.loads(told)["test_cases"] if told else []
            if task.name == "functional-positive":
                cases = [c | {"expected_status": 400} for c in cases]
            else:
                cases = [{k: c[k] for k in ("name", "payload")} for c in cases]
            made.append(compact({"test_cases": cases}) if len(cases) == 3 else None)
        return made

    return wrong


def _others_answer(name: str) -> Callable[[Sequence[Item]], list[str | None]]:
    """The right answer to an item of another source."""

    def wrong(items: Sequence[Item]) -> list[str | None]:
        right = answers_of(name, items)
        by_source = sorted(items, key=lambda i: (i.source, i.id))
        found = {}
        for n, item in enumerate(by_source):
            other = by_source[(n + len(by_source) // 2) % len(by_source)]
            found[item.id] = right.get(other.id) if other.source != item.source else None
        return [found[i.id] for i in items]

    return wrong


def _complement(items: Sequence[Item]) -> list[str | None]:
    made: list[str | None] = []
    for item in items:
        kept = json.loads(answers_of("test-validator", [item])[item.id])["keep"]
        cases = len(json.loads(user_text(item.messages).rpartition("\n")[2])["test_cases"])
        made.append(compact({"keep": [n for n in range(cases) if n not in kept]}))
    return made


def _turned_round(items: Sequence[Item]) -> list[str | None]:
    """Known tests with each assertion negated: they fail on the right code."""
    right = answers_of("unit-test-generation", items)
    return [_negated(right[i.id]) if i.id in right else None for i in items]


def _negated(tests: str) -> str:
    tree = ast.parse(tests)
    for node in ast.walk(tree):
        if isinstance(node, ast.Assert):
            node.test = ast.UnaryOp(ast.Not(), node.test)
    return ast.unparse(ast.fix_missing_locations(tree))


def _what_ran(items: Sequence[Item]) -> list[str | None]:
    """The lines that did run called gaps, and no call."""
    made: list[str | None] = []
    for item in items:
        spans = user_text(item.messages).rpartition("# lines that ran: ")[2].split(", ")
        ran = [int(s.partition("-")[0]) for s in spans if s.partition("-")[0].isdigit()]
        made.append(compact({"lines": ran, "branches": [], "calls": []}))
    return made


def _flipped(items: Sequence[Item]) -> list[str | None]:
    turned = {"flaky": ("stable", "none"), "stable": ("flaky", "unknown")}
    made: list[str | None] = []
    for item in items:
        verdict, cause = turned[item.truth["verdict"]]
        made.append(compact({"verdict": verdict, "cause": cause, "confidence": 0.9}))
    return made


def _the_twins(name: str) -> Callable[[Sequence[Item]], list[str | None]]:
    """What is right of the vulnerable twin said of the mended one, and the reverse."""

    def wrong(items: Sequence[Item]) -> list[str | None]:
        right = answers_of(name, items)
        other = {"vulnerable": "fixed", "fixed": "vulnerable"}
        twins = {i.id: f"{i.id.rpartition('/')[0]}/{other[i.id.rpartition('/')[2]]}" for i in items}
        return [right.get(twins[i.id]) for i in items]

    return wrong


def _elsewhere(items: Sequence[Item]) -> list[str | None]:
    """Alarms where nothing is labelled, and silence where something is."""
    made: list[str | None] = []
    for item in items:
        metric = user_text(item.messages).split("\n")[2].split()[1].partition("*")[0]
        issues = [] if item.truth["issues"] else [{"metric": metric, "from": 3, "to": 8, "kind": "anomaly"}]
        made.append(compact({"status": "degraded" if issues else "ok", "issues": issues, "recommendations": []}))
    return made


def _silent_or_alarmed(items: Sequence[Item]) -> list[str | None]:
    """Faulty changes called clean, and a finding on clean ones."""
    finding: dict[str, Any] = {"line": 1, "kind": "other", "why": "it looks odd"}
    return [compact({"findings": [] if i.truth["findings"] else [finding]}) for i in items]


WRONG: dict[str, Callable[[Sequence[Item]], list[str | None]]] = {
    "functional-negative": _other_kind(FunctionalPositive()),
    "functional-positive": _other_kind(FunctionalNegative()),
    "spec-analyzer": _others_answer("spec-analyzer"),
    "test-validator": _complement,
    "unit-test-generation": _turned_round,
    "coverage-analysis": _what_ran,
    "flaky-detection": _flipped,
    "security-review": _the_twins("security-review"),
    "security-auth": _the_twins("security-auth"),
    "performance-analyzer": _elsewhere,
    "code-review": _silent_or_alarmed,
}


@pytest.mark.parametrize("name", REAL)
def test_wrong_answers_score_low(name: str) -> None:
    items = some(name, 8)
    pairs = [(i, a) for i, a in zip(items, WRONG[name](items), strict=True) if a is not None]
    assert len(pairs) >= 0.8 * len(items)
    grades = graded(task_of(name), [i for i, _ in pairs], [a for _, a in pairs])
    assert statistics.fmean(g.score for g in grades) <= EXPECTED[name].wrong
    assert statistics.fmean(g.conforms for g in grades) >= 0.95, "they are wrong, not broken"


@pytest.mark.parametrize("name", ["flaky-detection", "security-review", "performance-analyzer", "code-review"])
def test_labels_that_were_shuffled_score_as_chance_does(name: str) -> None:
    items = list(items_of(name))
    right = answers_of(name, items)
    shuffled = random.Random(1).sample(items, len(items))
    scores = [g.score for g in graded(task_of(name), items, [right[i.id] for i in shuffled])]
    common = max(statistics.fmean(i.scenario == s for i in items) for s in {i.scenario for i in items})
    assert statistics.fmean(scores) < common + 0.02 < 0.85


def test_tests_of_right_code_fail_on_mutants_of_it() -> None:
    """The other way round: the same tests, and code that a fault was put into."""
    task, score = task_of("unit-test-generation"), []
    for item in some("unit-test-generation", 6):
        snippet, right = prompt.parsed(item.messages, item.truth), known_answer(task, item)
        seen = observation(snippet) if snippet else None
        if snippet is None or right is None or seen is None:
            continue
        noticed = mutants(snippet.code)[min(seen.killable)]
        faulty = msgspec.structs.replace(snippet, code=ast.unparse(noticed.tree) + "\n")
        grade = task.grade(prompt.messages(faulty), right)
        score.append(grade.score if grade else 0.0)
    assert len(score) >= 4 and max(score) == 0.0


def test_findings_stand_where_changes_begin_in_the_new_file() -> None:
    before, after = "a\nb\nc\nd\ne\nf\n" + "x\n" * 9 + "g\n", "a\nB\nB2\nc\ne\nf\n" + "x\n" * 9 + "g\nh\n"
    (undone, fix) = changes({"commit": "host/owner/repository/c", "fixed": before, "vulnerable": after})
    assert undone["findings"] == [{"line": 2}, {"line": 5}, {"line": 17}] and fix["findings"] == []
    assert undone["project"] == fix["project"] == "owner/repository"
    lines = after.splitlines()
    assert [lines[f["line"] - 1] for f in undone["findings"]] == ["B", "e", "h"]


def test_operations_of_the_same_path_and_name_are_kept_apart(tmp_path: Path) -> None:
    body = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    row = {"api": "p.example/a", "version": "1", "method": "POST", "path": "/x", "operation_id": "make", "schema": body}
    rows = [row, row | {"api": "p.example/b"}, row | {"api": "q.example:z"}, row | {"version": "2"}]
    (tmp_path / "o.json").write_text(openapi([*rows, row | {"version": "3"}]))
    made = task_of("spec-analyzer").items(TaskSourceSpec(kind="openapi", location=str(tmp_path / "o.json")))
    assert len(made) == 5 and Counter(i.source for i in made) == {"p-example": 4, "q-example": 1}


def test_what_is_without_real_data_is_named() -> None:
    assert {*REAL, *NONE} == set(names()) - {"generic"}


def test_the_benchmark_scores_the_trivial_below_the_right() -> None:
    items = list(items_of("flaky-detection"))[::20]
    trivial, words, history, right = measure(task_of("flaky-detection"), "FlakeFlagger", items, 50)
    assert right.score == 1.0 and right.rule == "right answers" and 0.5 < trivial.score < history.score < 1.0
    assert trivial.low <= trivial.score <= trivial.high and words.items == len(items)
    made = [json.loads(c.json()) for c in claims([trivial, words, history, right])]
    assert [m["claim"].rpartition(": ")[2] for m in made] == ["always stable", "words", "history"]
    assert all(set(m) == {"claim", "ours", "peer", "ratio", "spread", "unit"} and m["peer"] == 1.0 for m in made)


@pytest.mark.parametrize("name", REAL)
def test_every_rule_answers_in_the_promised_form(name: str) -> None:
    items, task = some(name, 3), task_of(name)
    items = random.Random(1).sample(items, min(80, len(items)))
    for rule in rules(task):
        answers = rule.answers(items)
        assert len(answers) == len(items) and all(task.conforms(a) for a in answers), rule.name
