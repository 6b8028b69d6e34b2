"""The checks of a task: one that keeps everything passes, and each promise that is broken is told."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import pytest

from pawl.errors import SourceError
from pawl.fleet.source import TaskSourceSpec
from pawl.qe import contract
from pawl.qe.contract import ContractBroken, check_task
from pawl.qe.item import CannotGrade, Grade, Item, Messages
from pawl.qe.task import Task, TaskDefaults, kind_of, user_text

SOURCE = TaskSourceSpec(kind="jsonl", location="-")


class Sums(TaskDefaults):
    """Sums of two numbers."""

    name = "sums"
    kinds = ("jsonl",)

    def items(self, source: TaskSourceSpec) -> Sequence[Item]:
        kind_of(self, source)
        asked = [(n, [{"role": "user", "content": f"SUM {n} 1"}]) for n in range(1, 10)]
        return [Item(id=str(n), source=f"s{n % 3}", messages=m, truth=str(n + 1)) for n, m in asked]

    def reference(self, item: Item, rng: random.Random) -> str | None:
        return str(item.truth)

    def source_of(self, messages: Messages) -> str | None:
        return "s" if user_text(messages).startswith("SUM") else None

    def conforms(self, completion: str) -> bool:
        return completion.isdecimal() and completion.isascii()

    def grade(self, messages: Messages, completion: str, truth: Any = None) -> Grade | None:
        if self.source_of(messages) is None:
            return None
        right = float(completion == truth)
        said = "" if right else "wrong"
        return Grade(score=right, conforms=self.conforms(completion), problem=said, metrics={"right": right})


def broken(**methods: Any) -> Task:
    made: Task = type("Broken", (Sums,), methods)()
    return made


def graded(**fields: Any) -> Any:
    """A grader with other fields than it should have."""

    def grade(self: Sums, messages: Messages, completion: str, truth: Any = None) -> Grade | None:
        found = Sums.grade(self, messages, completion, truth)
        return None if found is None else Grade(**{f: getattr(found, f) for f in Grade.__struct_fields__} | fields)

    return grade


def test_a_task_that_keeps_everything_passes() -> None:
    check_task(Sums(), SOURCE, items=9, sources=3)


def flipping() -> Any:
    turn = iter(range(10_000))

    def items(self: Sums, source: TaskSourceSpec) -> Sequence[Item]:
        return Sums.items(self, source)[next(turn) % 2 :]

    return items


@pytest.mark.parametrize(
    ("task", "told"),
    [
        (broken(items=lambda self, source: Sums.items(self, source)[:2]), "2 items where 6"),
        (broken(items=lambda self, source: Sums.items(self, source)[::3] * 3), "1 sources where 3"),
        (broken(items=lambda self, source: Sums.items(self, source) * 2), "distinct and sorted: '9' stands before '1'"),
        (broken(items=lambda self, source: Sums.items(self, source)[::-1]), "distinct and sorted"),
        (broken(items=flipping()), "other items the second time"),
        (broken(reference=lambda self, item, rng: None), "gives no answer for item"),
        (broken(reference=lambda self, item, rng: "many"), "has not the form"),
        (broken(reference=lambda self, item, rng: "77"), "oracle and the reference disagree"),
        (broken(cluster_key=lambda self, messages, completion: "wrong"), "calls the reference answer"),
        (broken(grade=graded(metrics={})), "has no metrics"),
        (broken(grade=graded(metrics={"right": 2.0})), "must lie in 0..1"),
        (broken(grade=graded(score=1.0)), "it must score 0"),
        (broken(grade=graded(problem="")), "without saying why"),
        (broken(grade=graded(conforms=True)), "is said to have the promised form"),
        (broken(grade=lambda self, *more: Grade(score=1.0, conforms=True, metrics={"a": 1.0})), "must score 0"),
        (broken(grade=lambda self, *more: None), "has no grade for"),
        (broken(source_of=lambda self, messages: "all"), "grades a prompt that is not its own"),
        (broken(scenario_of=lambda self, messages, completion: "x"), "has a class for a prompt"),
        (broken(reference=lambda self, item, rng: "5", items=lambda self, source: [
            Item(id=i.id, source=i.source, messages=i.messages, truth="5") for i in Sums.items(self, source)
        ]), "the same right answer"),
        (broken(kinds=(), items=lambda self, source: Sums().items(SOURCE), name="any"), ""),
    ],
)  # fmt: skip
def test_each_promise_that_is_broken_is_told(task: Task, told: str) -> None:
    if not told:
        check_task(task, SOURCE, items=6, sources=3)  # clients bring its items: any kind will do
        return
    with pytest.raises(ContractBroken, match=told):
        check_task(task, SOURCE, items=6, sources=3)


def test_an_oracle_that_does_not_look_is_told() -> None:
    def grade(self: Sums, messages: Messages, completion: str, truth: Any = None) -> Grade | None:
        right = float(self.conforms(completion))
        told = "" if right else "no number"
        return (
            Grade(score=right, conforms=bool(right), problem=told, metrics={"a": right})
            if self.source_of(messages)
            else None
        )

    with pytest.raises(ContractBroken, match="does not look"):
        check_task(broken(grade=grade), SOURCE)


def test_a_kind_that_is_taken_in_silence_is_told() -> None:
    def items(self: Sums, source: TaskSourceSpec) -> Sequence[Item]:
        return Sums.items(self, SOURCE)

    def refuses(self: Sums, source: TaskSourceSpec) -> Sequence[Item]:
        if source.kind != "jsonl":
            raise SourceError("no")
        return Sums.items(self, SOURCE)

    with pytest.raises(ContractBroken, match="takes kind botocore"):
        contract.check_kinds(broken(items=items))
    with pytest.raises(ContractBroken, match="without naming jsonl"):
        contract.check_kinds(broken(items=refuses))


def test_an_oracle_that_is_not_there_is_no_broken_promise() -> None:
    def grade(self: Sums, messages: Messages, completion: str, truth: Any = None) -> Grade | None:
        raise CannotGrade("no sandbox")

    with pytest.raises(CannotGrade, match="no sandbox"):
        check_task(broken(grade=grade), SOURCE)
