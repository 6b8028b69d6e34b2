"""The built-in task `functional-negative` as the data loop sees it: source, class, grade, variants of its examples.

Scenario classes name the rules that an answer's cases break. Most answers break presence and types at least once,
so the class of an answer is the rarest rule that any of its cases breaks, in the fixed order of `RARE`; only where
all of them break presence or types alone, it is the one of the two that is broken more often (`missing` in a tie).
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator

import orjson

from pawl.errors import SourceError
from pawl.qe.functional_negative import oracle
from pawl.qe.functional_negative.variants import variants
from pawl.qe.operations.operation import Grade, Operation
from pawl.qe.task import Messages, Variant, user_text

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


class FunctionalNegative:
    """Negative test cases for one HTTP operation, graded by the JSON Schema of its body."""

    def source_of(self, messages: Messages) -> str | None:
        """The service or API of the operation."""
        op = _operation(messages)
        return op.source if op else None

    def scenario_of(self, messages: Messages, completion: str) -> str:
        """What the answer's cases break: one of `RARE`, `missing` or `type`."""
        grade = _grade(messages, completion)
        rules = [r for c in grade.cases for r in c.signature.split(";") if r] if grade else []
        broken = Counter(_CLASS_OF.get(r.partition("@")[0], "combination") for r in rules)
        for name in RARE:
            if broken[name]:
                return name
        if not broken:
            return ""
        return "missing" if broken["missing"] >= broken["type"] else "type"

    def grade(self, messages: Messages, completion: str) -> float | None:
        """Share of right and distinct cases."""
        grade = _grade(messages, completion)
        return grade.score if grade else None

    def conforms(self, completion: str) -> bool:
        """Whether an answer is JSON of the response schema."""
        if len(completion) > oracle.MAX_COMPLETION_BYTES:
            return False
        try:
            return bool(_RESPONSE.is_valid(orjson.loads(completion)))
        except ValueError:
            return False

    def content_of(self, messages: Messages) -> str:
        """`METHOD path name` without the service's prefix, and the compact schema; a foreign prompt's user text."""
        op = _operation(messages)
        if op is None:
            return user_text(messages)
        name = op.id.partition(".")[2] or op.id
        return f"{op.method} {op.path} {name}\n{orjson.dumps(op.schema).decode()}"

    def variants(self, messages: Messages, completion: str, rng: random.Random) -> Iterator[Variant]:
        """Renamed members, other orders, other constraints, other words, another operation."""
        return variants(messages, completion, rng)

    def cluster_key(self, messages: Messages, completion: str) -> str:
        """The most frequent failure of the answer's cases, or what is wrong with the answer as a whole."""
        grade = _grade(messages, completion)
        if grade is None or grade.score >= 1.0:
            return ""
        if not grade.valid_json:
            if grade.problem.startswith("longer"):
                return "too_long"
            # Prose around an answer and an answer that was cut off are different faults of a model.
            return "prose_around_json" if "{" in completion and not completion.lstrip().startswith("{") else "not_json"
        if not grade.cases:
            return "no_test_cases"
        failed = Counter(c.outcome for c in grade.cases if c.outcome in _FAILURES)
        if failed:
            return max(_FAILURES, key=lambda outcome: failed[outcome])  # the first of equals
        return "too_few" if len(grade.cases) < oracle.ASKED else "too_many"


_RESPONSE = oracle.compiled(oracle.response_schema())


def _operation(messages: Messages) -> Operation | None:
    try:
        return oracle.parse_task(messages)
    except SourceError:
        return None


def _grade(messages: Messages, completion: str) -> Grade | None:
    try:
        return oracle.grade(oracle.parse_task(messages).schema, completion)
    except SourceError:
        return None
