"""The built-in task `functional-positive` as the data loop sees it.

Scenario classes name what an answer's right cases cover, the rarest first: a count of items at its limit, a length, a
member of an enumeration, a number at its limit, an optional member; `required` where they show nothing of these.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from pawl.errors import SourceError
from pawl.fleet.source import TaskSourceSpec
from pawl.qe.functional_positive import oracle, reference
from pawl.qe.functional_positive.coverage import KINDS, Goal, goals, members
from pawl.qe.functional_positive.oracle import CasesGrade
from pawl.qe.functional_positive.wording import SENTENCES
from pawl.qe.item import Grade, Item, Messages, Part
from pawl.qe.operations.answers import form_failure, parts_of, read_cases
from pawl.qe.operations.operation import Operation
from pawl.qe.operations.prompt import content_of, operation_of
from pawl.qe.operations.schema_walk import type_of
from pawl.qe.operations.task import OperationTask
from pawl.qe.operations.variants import variants
from pawl.qe.task import Variant

RARE = ("items", "length", "enum", "range", "optional")
_OF_TYPE = {"array": "items", "string": "length", "integer": "range", "number": "range"}
# The gravest first: of two failures that are equally frequent the first one names the answer.
_FAILURES = ("malformed", "invalid_payload", "duplicate", "undecided")


class FunctionalPositive(OperationTask):
    """Valid and varied test cases for one HTTP operation, graded by the JSON Schema of its body."""

    name = "functional-positive"
    system = oracle.SYSTEM
    expects = "taken"

    def items(self, source: TaskSourceSpec) -> Sequence[Item]:
        """An item for each operation that three short payloads can cover."""
        found = [o for o in self.operations(source) if reference.solvable(o.schema)]
        if not found:
            raise SourceError("no operation of this source can be covered by three short payloads; name another one")
        return [Item(id=o.id, source=o.source, messages=oracle.messages(o)) for o in found]

    def reference(self, item: Item, rng: random.Random) -> str | None:
        """The smallest payload, the fullest, and one with what is left to show, each verified."""
        op = operation_of(item.messages)
        try:
            return reference.answer(op.schema, rng) if op else None
        except SourceError:
            return None

    def response_schema(self) -> dict[str, Any] | None:
        """Three cases of a name and a payload."""
        return oracle.response_schema()

    def scenario_of(self, messages: Messages, completion: str) -> str:
        """What the answer's right cases cover: one of `RARE`, or `required`; "" where no case is right."""
        found = _grade(messages, completion)
        if found is None or not any(c.outcome == "valid" for c in found[1].cases):
            return ""
        return _rarest(found[0], found[1].met)

    def class_of(self, item: Item) -> str:
        """The rarest thing that the operation's schema lets one cover."""
        op = operation_of(item.messages)
        return _rarest(op, goals(op.schema)) if op else ""

    def grade(self, messages: Messages, completion: str, truth: Any = None) -> Grade | None:
        """Share of right and distinct cases times coverage; the prompt's own schema is all the truth there is."""
        found = _grade(messages, completion)
        if found is None:
            return None
        cases = found[1].cases
        asked = max(oracle.ASKED, found[1].given)
        outcomes = Counter(c.outcome for c in cases)
        metrics = {
            "validity": (outcomes["valid"] + outcomes["duplicate"]) / asked,
            "diversity": outcomes["valid"] / max(1, outcomes["valid"] + outcomes["duplicate"]),
            "coverage": found[1].coverage if cases else 0.0,
        }
        problem = found[1].problem or ", ".join(_problems(found[1]))
        return Grade(score=found[1].score, conforms=self.conforms(completion), problem=problem, metrics=metrics)

    def parts(self, messages: Messages, completion: str) -> Sequence[Part] | None:
        """The cases: right where the schema takes the payload and no earlier right case has the same."""
        found = _grade(messages, completion)
        return None if found is None else parts_of(completion, [c.outcome for c in found[1].cases], "valid")

    def tests_in(self, completion: str) -> int:
        """The cases of its list."""
        return len(read_cases(completion)[0])

    def content_of(self, messages: Messages) -> str:
        """`METHOD path name` without the service's prefix, and the compact schema; a foreign prompt's user text."""
        return content_of(messages)

    def variants(self, messages: Messages, completion: str, rng: random.Random) -> Iterator[Variant]:
        """Renamed members, other orders, other constraints, other words, another operation."""
        return variants(messages, completion, rng, SENTENCES)

    def cluster_key(self, messages: Messages, completion: str, truth: Any = None) -> str:
        """The most frequent failure of the answer's cases, what they leave out, or what is wrong with its form."""
        found = _grade(messages, completion)
        if found is None or found[1].score >= 1.0:
            return ""
        cases = found[1].cases
        if not cases:
            return form_failure(found[1].problem, completion)
        failed = Counter(c.outcome for c in cases if c.outcome in _FAILURES)
        if failed:
            return max(_FAILURES, key=lambda outcome: failed[outcome])  # the first of equals
        return _problems(found[1])[0]


def _problems(found: CasesGrade) -> list[str]:
    """What keeps an answer with cases from full marks: failures of cases, their number, kinds of goal not all met."""
    failed = [f"{name} {n}" for name in _FAILURES if (n := sum(c.outcome == name for c in found.cases))]
    if found.given != oracle.ASKED:
        failed.append("too_few" if found.given < oracle.ASKED else "too_many")
    left = {g.kind for g in found.asked if g not in found.met}
    return failed + [f"no_{kind}" if kind != "plausible" else "placeholder" for kind in KINDS if kind in left]


def _rarest(op: Operation, some: Iterable[Goal]) -> str:
    types = {m.place: type_of(m.schema) for m in members(op.schema)}
    found = {_OF_TYPE.get(types[g.place], "") if g.kind == "limit" else g.kind for g in some}
    return next((name for name in RARE if name in found), "required")


def _grade(messages: Messages, completion: str) -> tuple[Operation, CasesGrade] | None:
    op = operation_of(messages)
    try:
        return (op, oracle.grade(op.schema, completion)) if op else None
    except SourceError:
        return None
