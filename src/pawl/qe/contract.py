"""What every task keeps, whatever it asks: checks that Pawl's own tests and those of a user's task call.

Each check returns where the task keeps its promise and raises ContractBroken where it does not, with the item and what
to do. CannotGrade passes through: without its oracle (a sandbox, a browser) nothing is proven of a task, and a test
skips with its text.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from pawl.errors import SourceError
from pawl.fleet.source import TaskSourceSpec
from pawl.qe.item import Grade, Item, Messages
from pawl.qe.task import Task

FULL = 0.99  # a score from here on is full marks
RUBBISH = ("", "I would test the name.", "{", "[]", "null", "\ud800", "{}" * 40_000)
_SOME, _LOOK = 6, 30
_FOREIGN: Messages = [{"role": "user", "content": "What is a flaky test?"}]
_KINDS = ("botocore", "openapi", "python", "jsonl", "simulated", "html")


class ContractBroken(AssertionError):
    """A task does not keep what the loop relies on; the text says what, and on which item."""


def check_task(task: Task, source: TaskSourceSpec, *, items: int = 1, sources: int = 1) -> None:
    """All checks, one after the other. The source must have that many items of that many sources.

    Raises:
        ContractBroken: at the first promise that is not kept.
        CannotGrade: the oracle is out of order.
        SourceError: the source is unusable.
    """
    found = check_items(task, source, items=items, sources=sources)
    check_oracle(task, found)
    check_reference(task, found)
    check_rubbish(task, found)
    check_others(task, found)
    check_foreign(task)
    check_kinds(task)


def check_items(task: Task, source: TaskSourceSpec, *, items: int = 1, sources: int = 1) -> Sequence[Item]:
    """The items of a source: enough of them, of enough sources, sorted by distinct ids, the same each time."""
    found = task.items(source)
    ids = [i.id for i in found]
    _keep(len(found) >= items, f"{task.name} has {len(found)} items where {items} are wanted: its source is too small")
    names = {i.source for i in found}
    _keep(
        len(names) >= sources,
        f"the items of {task.name} are of {len(names)} sources where {sources} are wanted: training and evaluation are "
        "split by `source`, so that one alone leaves nothing to judge on",
    )
    _keep(ids == sorted(set(ids)), f"the ids of {task.name}'s items must be distinct and sorted: {_unsorted(ids)}")
    again = [i.id for i in task.items(source)]
    _keep(again == ids, f"{task.name}.items gives other items the second time: its order or its choice is not fixed")
    return found


def check_oracle(task: Task, items: Sequence[Item]) -> None:
    """Whether the oracle works here; CannotGrade where it does not."""
    for item in some(items):
        _graded(task, item, "{}")


def check_reference(task: Task, items: Sequence[Item]) -> None:
    """The reference answer has the promised form, full marks and no failure; its figures are the same each time."""
    for item in some(items):
        answer = task.reference(item, random.Random(item.id))
        if answer is None:
            raise ContractBroken(f"{task.name}.reference gives no answer for item {item.id}")
        _keep(
            task.conforms(answer), f"the reference answer for {item.id} has not the form of response_schema: {answer}"
        )
        grade = _graded(task, item, answer)
        _keep(
            grade.conforms and grade.score >= FULL,
            f"the reference answer for {item.id} scores {grade.score:.3f} ({grade.problem}): the oracle and the "
            "reference disagree",
        )
        key = task.cluster_key(item.messages, answer)
        _keep(key == "", f"cluster_key calls the reference answer for {item.id} a failure: {key}")
        _keep(
            _graded(task, item, answer) == grade, f"the same answer for {item.id} is graded otherwise the second time"
        )
        _keep(bool(grade.metrics), f"the grade for {item.id} has no metrics: name the parts of the score")
        bad = {k: v for k, v in grade.metrics.items() if not 0 <= v <= 1}
        _keep(not bad, f"metrics must lie in 0..1; for {item.id} there is {bad}")


def check_rubbish(task: Task, items: Sequence[Item], answers: Sequence[str] = RUBBISH) -> None:
    """Answers that are none score 0, say why, have not the form, and are no error."""
    item = some(items)[0]
    for answer in answers:
        grade = _graded(task, item, answer)
        what = f"the answer {answer[:40]!r} to {item.id}"
        _keep(grade.score == 0, f"{what} scores {grade.score:.3f}; it must score 0")
        _keep(bool(grade.problem), f"{what} scores 0 without saying why: fill `problem` of the grade")
        _keep(not grade.conforms, f"{what} is said to have the promised form")


def check_others(task: Task, items: Sequence[Item]) -> None:
    """Right answers to other items are worth less, where they differ: else one answer would do for all."""
    one, *rest = random.Random(3).sample(list(items), min(_LOOK, len(items)))
    if not rest:
        return
    own = task.reference(one, random.Random(1))
    scores: list[float] = []
    for item in rest:
        answer = task.reference(item, random.Random(1)) or ""
        if answer != own:
            scores.append(_graded(task, one, answer).score)
        if len(scores) == _SOME:
            break
    _keep(
        bool(scores), f"{len(rest)} items have the same right answer as {one.id}: a model learns that one answer alone"
    )
    _keep(all(0 <= s <= 1 for s in scores), f"scores must lie in 0..1; for {one.id} there are {scores}")
    _keep(min(scores) < FULL, f"the answers to other items are full marks for {one.id} too: the oracle does not look")


def check_foreign(task: Task) -> None:
    """A prompt that is not of this task has no grade, no source and no class, and is no error."""
    _keep(task.grade(_FOREIGN, "x") is None, f"{task.name} grades a prompt that is not its own: return None")
    _keep(task.source_of(_FOREIGN) is None, f"{task.name} names a source for a prompt that is not its own")
    classes = (task.scenario_of(_FOREIGN, "x"), task.cluster_key(_FOREIGN, "x"))
    _keep(classes == ("", ""), f"{task.name} has a class for a prompt that is not its own: {classes}")


def check_kinds(task: Task) -> None:
    """A kind of source that it does not take is refused, in words that name one that it does."""
    wrong = next((k for k in _KINDS if k not in task.kinds), None)
    if wrong is None or not task.kinds:
        return
    try:
        task.items(TaskSourceSpec.model_validate({"kind": wrong, "location": "."}))
    except SourceError as error:
        _keep(task.kinds[0] in str(error), f"{task.name} refuses kind {wrong} without naming {task.kinds[0]}: {error}")
        return
    raise ContractBroken(
        f"{task.name} takes kind {wrong}, which is none of its kinds: call kind_of(self, source) first"
    )


def some(items: Sequence[Item]) -> list[Item]:
    """A few of the items, the same each time."""
    return random.Random(3).sample(list(items), min(_SOME, len(items)))


def _graded(task: Task, item: Item, answer: str) -> Grade:
    grade: Any = task.grade(item.messages, answer, item.truth)
    if not isinstance(grade, Grade):
        raise ContractBroken(f"{task.name} has no grade for {answer[:40]!r} to its own item {item.id}, but {grade!r}")
    return grade


def _unsorted(ids: list[str]) -> str:
    pair = next(((a, b) for a, b in pairwise(ids) if a >= b), ("", ""))
    return f"{pair[0]!r} stands before {pair[1]!r}"


def _keep(kept: bool, told: str) -> None:
    if not kept:
        raise ContractBroken(told)
