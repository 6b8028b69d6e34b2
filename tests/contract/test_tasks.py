"""What every built-in task keeps, whatever it asks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import pytest

from pawl.qe import contract
from pawl.qe.item import CannotGrade, Item
from pawl.qe.task import Task
from pawl.qe.tasks import names, task_of
from tests.contract.task_sources import SOURCES

TASKS = [n for n in names() if n != "generic"]


@cache
def items_of(name: str) -> Sequence[Item]:
    return contract.check_items(task_of(name), SOURCES[name], items=6, sources=3)


@cache
def lacks(name: str) -> str:
    """What the oracle says is not here; "" where it works."""
    try:
        contract.check_oracle(task_of(name), items_of(name))
    except CannotGrade as error:
        return str(error)
    return ""


@pytest.fixture(params=TASKS)
def task(request: Any) -> Task:
    if missing := lacks(request.param):
        pytest.skip(f"skipped: {request.param}, whose oracle is not here: {missing}")
    return task_of(request.param)


def test_items_are_distinct_sorted_and_of_several_sources(task: Task) -> None:
    assert items_of(task.name)


@pytest.mark.parametrize("check", [contract.check_reference, contract.check_others])
def test_answers_are_told_apart(task: Task, check: Callable[[Task, Sequence[Item]], None]) -> None:
    check(task, items_of(task.name))


@pytest.mark.parametrize("answer", contract.RUBBISH)
def test_rubbish_scores_nothing_and_is_no_error(task: Task, answer: str) -> None:
    contract.check_rubbish(task, items_of(task.name), [answer])


@pytest.mark.parametrize("check", [contract.check_foreign, contract.check_kinds])
def test_what_is_not_its_own_is_left_alone(task: Task, check: Callable[[Task], None]) -> None:
    check(task)
