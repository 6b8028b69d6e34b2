"""The task `test-validator`: an operation and test cases for it in, the numbers of the right ones out.

The oracle is that of the negative cases itself: a case is right where the operation's schema really rejects its
payload, its status is sensible, and no earlier right case breaks the same rules.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import orjson

from pawl.errors import SourceError
from pawl.fleet.source import TaskSourceSpec
from pawl.qe.functional_negative import oracle, reference
from pawl.qe.item import Grade, Item, Messages
from pawl.qe.operations.operation import Operation
from pawl.qe.operations.prompt import asking, operation_of
from pawl.qe.operations.task import OperationTask
from pawl.qe.task import LONGEST_ANSWER, user_text

SYSTEM = 'Which of the test cases are right? Answer with their numbers, from 0, as compact JSON: {"keep":[0,2]}'
FAULTY = 0.5  # share of items with a case that is not right
MOST_CASES = 12  # as many as the oracle looks at
MOST_ITEMS = 2500
_SCHEMA = {
    "type": "object",
    "properties": {"keep": {"type": "array", "items": {"type": "integer", "minimum": 0}, "maxItems": MOST_CASES}},
    "required": ["keep"],
    "additionalProperties": False,
}
_CARELESS: dict[str, Any] = {}  # what a careless generator writes whatever is asked


class CaseValidator(OperationTask):
    """Which of some negative test cases are right."""

    name = "test-validator"
    system = SYSTEM

    def items(self, source: TaskSourceSpec) -> Sequence[Item]:
        """Items of some operations: cases of the reference generator, in half of them with a fault put in."""
        found = self.operations(source)
        if len(found) > MOST_ITEMS:  # making cases takes a millisecond each
            found = sorted(random.Random("test-validator").sample(found, MOST_ITEMS), key=lambda o: o.id)
        return [Item(id=o.id, source=o.source, messages=_messages(o)) for o in found]

    def reference(self, item: Item, rng: random.Random) -> str | None:
        """What the oracle keeps."""
        right = _right(item.messages)
        return None if right is None else orjson.dumps({"keep": right}).decode()

    def response_schema(self) -> dict[str, Any] | None:
        """Numbers."""
        return _SCHEMA

    def class_of(self, item: Item) -> str:
        """Whether all, some or none of the cases are right."""
        right = _right(item.messages)
        if right is None:
            return ""
        return "none" if not right else "all" if len(right) == len(_cases(item.messages) or ()) else "some"

    def grade(self, messages: Messages, completion: str, truth: Any = None) -> Grade | None:
        """Share of the cases that were told right from wrong."""
        right, cases = _right(messages), _cases(messages)
        if right is None or cases is None:
            return None
        kept = _kept(completion)
        if kept is None or not self.conforms(completion) or any(n >= len(cases) for n in kept):
            return Grade(score=0.0, conforms=False, problem="no numbers of cases in the promised form")
        told_right = sum((n in kept) == (n in right) for n in range(len(cases)))
        kept_wrong, lost = len(kept - set(right)), len(set(right) - kept)
        metrics = {
            "exact": float(kept == set(right)),
            "kept_right": 1 - kept_wrong / max(1, len(kept)),
            "lost_none": 1 - lost / max(1, len(right)),
        }
        problem = ", ".join(w for n, w in ((kept_wrong, "kept a wrong case"), (lost, "lost a right case")) if n)
        return Grade(score=told_right / max(1, len(cases)), conforms=True, problem=problem, metrics=metrics)

    def cluster_key(self, messages: Messages, completion: str, truth: Any = None) -> str:
        """`not_in_form`, `kept_wrong`, `lost_right`, or both."""
        grade = self.grade(messages, completion)
        if grade is None or not grade.problem:
            return ""
        if not grade.conforms:
            return "not_in_form"
        both = grade.metrics["kept_right"] < 1 and grade.metrics["lost_none"] < 1
        return "both" if both else "kept_wrong" if grade.metrics["kept_right"] < 1 else "lost_right"


def _messages(o: Operation) -> Messages:
    rng = random.Random(f"test-validator/{o.id}")
    cases = reference.cases(o.schema, rng)
    if rng.random() < FAULTY:
        n = rng.randrange(len(cases))  # the reference generator finds one for each operation of a source
        fault = rng.choice(("valid", "status", "repeated"))
        if fault == "repeated" and len(cases) > 1:
            cases[n] = cases[n - 1] | {"name": cases[n]["name"]}
        elif fault == "status":
            cases[n] = cases[n] | {"expected_status": rng.choice((200, 201, 500))}
        else:
            cases[n] = cases[n] | {"payload": _accepted(o)}
    rows = orjson.dumps({"test_cases": cases}).decode()
    return asking(SYSTEM, o, rows)


def _accepted(o: Operation) -> Any:
    """A payload that the operation accepts, where the reference generator finds one; else one of the careless."""
    found = reference.minimal(o.schema)
    return _CARELESS if found is None else found


def _right(messages: Messages) -> list[int] | None:
    operation, cases = operation_of(messages), _cases(messages)
    if operation is None or cases is None:
        return None
    answer = orjson.dumps({"test_cases": cases}).decode()
    try:
        graded = oracle.grade(operation.schema, answer).cases
    except SourceError:
        return None
    return [n for n, c in enumerate(graded) if c.outcome == "rejected_as_expected"]


def _cases(messages: Messages) -> list[Any] | None:
    """The cases of a prompt: the last line of the user's words."""
    line = user_text(messages).strip().rpartition("\n")[2]
    try:
        found = orjson.loads(line)
    except ValueError:
        return None
    cases = found.get("test_cases") if isinstance(found, dict) else None
    return cases if isinstance(cases, list) and 0 < len(cases) <= MOST_CASES else None


def _kept(completion: str) -> set[int] | None:
    if len(completion) > LONGEST_ANSWER:
        return None
    try:
        found = orjson.loads(completion)
    except ValueError:
        return None
    keep = found.get("keep") if isinstance(found, dict) else None
    return {n for n in keep if type(n) is int} if isinstance(keep, list) else None
