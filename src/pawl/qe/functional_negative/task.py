"""The built-in task `functional-negative` as the data loop sees it: source, class, grade, variants of its examples.

Scenario classes name the rules that an answer's cases break. Most answers break presence and types at least once,
so the class of an answer is the rarest rule that any of its cases breaks, in the fixed order of `RARE`; only where
all of them break presence or types alone, it is the one of the two that is broken more often (`missing` in a tie).
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any

import orjson

from pawl.errors import SourceError
from pawl.fleet.source import TaskSourceSpec
from pawl.qe.functional_negative import oracle, reference
from pawl.qe.functional_negative.oracle import CasesGrade
from pawl.qe.functional_negative.wording import SENTENCES
from pawl.qe.item import Grade, Item, Messages, Part
from pawl.qe.operations.answers import form_failure, parts_of, read_cases
from pawl.qe.operations.prompt import content_of, operation_of, parsed
from pawl.qe.operations.task import OperationTask
from pawl.qe.operations.variants import variants
from pawl.qe.task import Variant

RARE = ("unexpected", "combination", "enum", "range", "length", "pattern")
_CLASSES = {
    "missing": ("required", "dependentRequired"),
    "type": ("type",),
    "unexpected": ("additionalProperties", "unevaluatedProperties", "falseSchema"),
    "enum": ("enum", "const"),
    "range": ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"),
    "length": ("minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties"),
    "pattern": ("pattern", "format", "propertyNames"),
}
_CLASS_OF = {keyword: name for name, keywords in _CLASSES.items() for keyword in keywords}
# The gravest first: of two failures that are equally frequent the first one names the answer.
_FAILURES = ("malformed", "wrongly_accepted", "bad_status", "duplicate", "undecided")


class FunctionalNegative(OperationTask):
    """Negative test cases for one HTTP operation, graded by the JSON Schema of its body."""

    name = "functional-negative"
    system = oracle.SYSTEM
    expects = "refused"

    def items(self, source: TaskSourceSpec) -> Sequence[Item]:
        """An item for each operation."""
        return [Item(id=o.id, source=o.source, messages=oracle.messages(o)) for o in self.operations(source)]

    def reference(self, item: Item, rng: random.Random) -> str | None:
        """Explicit mutations of a minimal payload, each verified."""
        operation = operation_of(item.messages)
        return reference.answer(operation.schema, rng, 0.0) if operation else None

    def response_schema(self) -> dict[str, Any] | None:
        """Three cases of a name, a payload and a status."""
        return oracle.response_schema()

    def scenario_of(self, messages: Messages, completion: str) -> str:
        """What the answer's cases break: one of `RARE`, `missing` or `type`."""
        grade = _grade(messages, completion)
        broken = _broken(grade) if grade else Counter[str]()
        for name in RARE:
            if broken[name]:
                return name
        if not broken:
            return ""
        return "missing" if broken["missing"] >= broken["type"] else "type"

    def class_of(self, item: Item) -> str:
        """The rarest rule that the operation's schema lets one break, as curation ranks them."""
        operation = operation_of(item.messages)
        if operation is None:
            return ""
        found = set()
        try:
            mutations = reference.mutations(operation.schema)
        except SourceError:  # a client's prompt may hold rules that are none
            return ""
        for m in mutations:
            case = {"name": m.name, "payload": m.payload, "expected_status": 400}
            found.add(self.scenario_of(item.messages, orjson.dumps({"test_cases": [case]}).decode()))
        return next((c for c in (*RARE, "missing", "type") if c in found), "")

    def grade(self, messages: Messages, completion: str, truth: Any = None) -> Grade | None:
        """Share of right and distinct cases; the prompt's own schema is all the truth there is.

        `class_coverage` is no part of the score: classes of rules that the cases break, of those that three could,
        as far as `reference.mutations` finds them.
        """
        found = _grade(messages, completion)
        if found is None:
            return None
        asked = max(oracle.ASKED, len(found.cases))
        outcomes = Counter(c.outcome for c in found.cases)
        refused = len(found.cases) - outcomes["wrongly_accepted"] - outcomes["malformed"] - outcomes["undecided"]
        metrics = {
            "validity": refused / asked,
            "diversity": len({c.signature for c in found.cases if c.signature}) / asked,
            "class_coverage": min(1.0, len(_broken(found)) / min(oracle.ASKED, _breakable(parsed(messages).schema))),
        }
        problem = found.problem or ", ".join(f"{k} {n}" for k in _FAILURES if (n := outcomes[k]))
        return Grade(score=found.score, conforms=self.conforms(completion), problem=problem, metrics=metrics)

    def parts(self, messages: Messages, completion: str) -> Sequence[Part] | None:
        """The cases: right where the schema rejects the payload in a way that no earlier right case has shown."""
        found = _grade(messages, completion)
        return None if found is None else parts_of(completion, [c.outcome for c in found.cases], "rejected_as_expected")

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
        """The most frequent failure of the answer's cases, or what is wrong with the answer as a whole."""
        grade = _grade(messages, completion)
        if grade is None or grade.score >= 1.0:
            return ""
        if not grade.cases:
            return form_failure(grade.problem, completion)
        failed = Counter(c.outcome for c in grade.cases if c.outcome in _FAILURES)
        if failed:
            return max(_FAILURES, key=lambda outcome: failed[outcome])  # the first of equals
        return "too_few" if len(grade.cases) < oracle.ASKED else "too_many"


def _broken(grade: CasesGrade) -> Counter[str]:
    """How often the answer's cases break a rule of each class."""
    return Counter(n for c in grade.cases for n in _classes_of(c.signature))


def _classes_of(signature: str) -> list[str]:
    """The class of each rule that a payload breaks."""
    return [_CLASS_OF.get(r.partition("@")[0], "combination") for r in signature.split(";") if r]


def _breakable(schema: dict[str, Any]) -> int:
    """How many classes of rules payloads can break, as far as the reference's mutations find them; at least one."""
    return _breakable_of(orjson.dumps(schema))


@lru_cache(maxsize=4096)
def _breakable_of(schema: bytes) -> int:
    mutations = reference.mutations(orjson.loads(schema))
    return max(1, len({n for m in mutations for n in _classes_of(m.signature)}))


def _grade(messages: Messages, completion: str) -> CasesGrade | None:
    try:
        return oracle.grade(parsed(messages).schema, completion)
    except SourceError:
        return None
