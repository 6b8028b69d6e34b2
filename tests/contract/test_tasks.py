"""What every built-in task keeps, whatever it asks."""

from __future__ import annotations

import random
from collections.abc import Sequence
from functools import cache
from typing import Any

import pytest

from pawl.errors import SourceError
from pawl.fleet.source import TaskSourceSpec
from pawl.qe.item import Item
from pawl.qe.task import Task
from pawl.qe.tasks import names, task_of
from tests.contract.task_sources import SOURCES

TASKS = [n for n in names() if n != "generic"]
SOME = 6


@cache
def items_of(name: str) -> Sequence[Item]:
    return task_of(name).items(SOURCES[name])


def some(name: str) -> list[Item]:
    found = items_of(name)
    return random.Random(3).sample(list(found), min(SOME, len(found)))


@pytest.fixture(params=TASKS)
def task(request: Any) -> Task:
    return task_of(request.param)


def test_items_are_distinct_sorted_and_of_several_sources(task: Task) -> None:
    found = items_of(task.name)
    assert len(found) >= SOME and len({i.source for i in found}) >= 3
    assert [i.id for i in found] == sorted({i.id for i in found})
    assert [i.id for i in task.items(SOURCES[task.name])] == [i.id for i in found]


def test_the_reference_answer_is_accepted_in_full(task: Task) -> None:
    for item in some(task.name):
        answer = task.reference(item, random.Random(item.id))
        assert answer is not None and task.conforms(answer), item.id
        grade = task.grade(item.messages, answer, item.truth)
        assert grade is not None and grade.conforms and grade.score >= 0.99, (item.id, grade)
        assert task.cluster_key(item.messages, answer) == ""
        assert grade == task.grade(item.messages, answer, item.truth)


@pytest.mark.parametrize("answer", ["", "I would test the name.", "{", "[]", "null", "\ud800", "{}" * 40_000])
def test_rubbish_scores_nothing_and_is_no_error(task: Task, answer: str) -> None:
    item = some(task.name)[0]
    grade = task.grade(item.messages, answer, item.truth)
    assert grade is not None and grade.score == 0 and grade.problem and not grade.conforms


def test_another_items_answer_is_worth_less(task: Task) -> None:
    one = some(task.name)[0]
    mine = task.reference(one, random.Random(1))
    # Where a task names one of a few classes, many items have the same right answer.
    sample = random.Random(5).sample(list(items_of(task.name)), min(5 * SOME, len(items_of(task.name))))
    others = [a for i in sample if (a := task.reference(i, random.Random(1)) or "") != mine]
    scores = []
    for answer in others:
        grade = task.grade(one.messages, answer, one.truth)
        assert grade is not None and 0 <= grade.score <= 1
        scores.append(grade.score)
    assert min(scores) < 0.99


def test_figures_lie_between_nothing_and_all(task: Task) -> None:
    for item in some(task.name):
        grade = task.grade(item.messages, task.reference(item, random.Random(2)) or "", item.truth)
        assert grade is not None and grade.metrics
        assert all(0 <= v <= 1 for v in grade.metrics.values()), grade.metrics


def test_foreign_prompts_have_no_grade(task: Task) -> None:
    foreign = [{"role": "user", "content": "What is a flaky test?"}]
    assert task.grade(foreign, "x") is None
    assert task.source_of(foreign) is None and task.scenario_of(foreign, "x") == "" == task.cluster_key(foreign, "x")


def test_a_source_that_it_does_not_take_is_told(task: Task) -> None:
    wrong = next(k for k in ("botocore", "python", "html") if k not in task.kinds)
    with pytest.raises(SourceError, match=task.kinds[0]):
        task.items(TaskSourceSpec.model_validate({"kind": wrong}))
