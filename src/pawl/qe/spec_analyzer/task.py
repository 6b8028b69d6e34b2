"""The task `spec-analyzer`: an operation in, the rules that its body must keep out. The schema itself is the oracle."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from typing import Any

import orjson

from pawl.fleet.source import TaskSourceSpec
from pawl.qe.item import Grade, Item, Messages
from pawl.qe.operations.prompt import asking, operation_of
from pawl.qe.operations.task import OperationTask
from pawl.qe.spec_analyzer import rules as spec
from pawl.qe.task import LONGEST_ANSWER

SYSTEM = 'List the rules of the request body as compact JSON: {"rules":[{"at":"a/b","rule":"minLength","value":2}]}'
MOST_CHARS = 480  # of an answer: what a small model writes in about 190 tokens
_SCHEMA = {
    "type": "object",
    "properties": {
        "rules": {
            "type": "array",
            "maxItems": 64,
            "items": {
                "type": "object",
                "properties": {"at": {"type": "string"}, "rule": {"type": "string"}, "value": {}},
                "required": ["at", "rule", "value"],
                "additionalProperties": False,
            },
        }
    },
    "required": ["rules"],
    "additionalProperties": False,
}


class SpecAnalyzer(OperationTask):
    """The rules of an operation's body, as its JSON Schema has them."""

    name = "spec-analyzer"
    system = SYSTEM

    def items(self, source: TaskSourceSpec) -> Sequence[Item]:
        """An item for each operation whose rules fit into a short answer."""
        found = []
        for o in self.operations(source):
            rules = spec.rules(o.schema)
            if rules and len(_answer(rules)) <= MOST_CHARS:
                found.append(Item(id=o.id, source=o.source, messages=asking(SYSTEM, o)))
        return found

    def reference(self, item: Item, rng: random.Random) -> str | None:
        """The schema's own rules."""
        operation = operation_of(item.messages)
        return _answer(spec.rules(operation.schema)) if operation else None

    def response_schema(self) -> dict[str, Any] | None:
        """A list of places, keywords and values."""
        return _SCHEMA

    def class_of(self, item: Item) -> str:
        """The rarest kind of rule: nested, enum, bounds, or flat."""
        operation = operation_of(item.messages)
        if operation is None:
            return ""
        found = spec.rules(operation.schema)
        if any("/" in r.at for r in found):
            return "nested"
        kinds = {r.rule for r in found}
        return "enum" if "enum" in kinds else "bounds" if kinds - {"type", "required"} else "flat"

    def grade(self, messages: Messages, completion: str, truth: Any = None) -> Grade | None:
        """F1 of the answer's rules against the schema's; a rule said twice counts as one wrong rule more."""
        operation = operation_of(messages)
        if operation is None:
            return None
        rules = _rules(completion)
        conforms = self.conforms(completion)
        if rules is None or not conforms:
            return Grade(score=0.0, conforms=False, problem="no list `rules` in the promised form")
        right = set(spec.rules(operation.schema))
        hits = len(right & set(rules))
        precision, recall = hits / max(1, len(rules)), hits / max(1, len(right))
        score = 2 * hits / max(1, len(rules) + len(right))
        missed, wrong = len(right) - hits, len(rules) - hits
        problem = "" if score == 1 else f"{missed} rule(s) missed, {wrong} wrong or said twice"
        return Grade(score=score, conforms=True, problem=problem, metrics={"precision": precision, "recall": recall})

    def cluster_key(self, messages: Messages, completion: str, truth: Any = None) -> str:
        """What went wrong most: `not_in_form`, `missed_RULE` or `invented_RULE`."""
        operation = operation_of(messages)
        if operation is None:
            return ""
        rules = _rules(completion)
        if rules is None or not self.conforms(completion):
            return "not_in_form"
        right = set(spec.rules(operation.schema))
        faults = Counter(f"missed_{r.rule}" for r in right - set(rules))
        faults += Counter(f"invented_{r.rule}"[:60] for r in rules if r not in right)
        if not faults:
            return "said_twice" if len(rules) != len(set(rules)) else ""
        return min(faults, key=lambda k: (-faults[k], k))


def _answer(rules: list[spec.Rule]) -> str:
    return orjson.dumps({"rules": spec.told(rules)}).decode()


def _rules(completion: str) -> list[spec.Rule] | None:
    if len(completion) > LONGEST_ANSWER:
        return None
    try:
        found = orjson.loads(completion)
    except ValueError:
        return None
    return spec.read(found.get("rules")) if isinstance(found, dict) else None
