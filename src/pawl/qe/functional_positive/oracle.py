"""The task `functional-positive`: prompt, answer format, and the grader that is its oracle.

An agent gets one HTTP operation with the JSON Schema of its body and writes three test cases that the operation must
accept. The oracle is the schema itself: a case is right when a validator really takes its payload. Three times the
smallest payload tests little, so that the score also counts what the right cases cover.
"""

from __future__ import annotations

from typing import Any

import jsonschema_rs
import msgspec
import orjson

from pawl.qe.functional_positive.coverage import Goal, goals, met
from pawl.qe.operations.answers import NO_CASES, answer_schema, read_cases
from pawl.qe.operations.operation import Operation
from pawl.qe.operations.prompt import asking
from pawl.qe.operations.validator import Undecided, compiled, signature_by

ASKED = 3  # further cases are not looked at, and only enlarge the denominator

SYSTEM = 'Write 3 valid, varied API test cases as compact JSON: {"test_cases":[{"name":"...","payload":{...}}]}'


class CaseResult(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one generated test case."""

    name: str
    outcome: str  # valid, invalid_payload, duplicate, undecided, malformed
    signature: str = ""  # which rule at which place an invalid payload breaks


class CasesGrade(msgspec.Struct, frozen=True, kw_only=True):
    """An answer's score, 0..1: the share of its cases that are right and distinct, times their coverage."""

    score: float
    valid_json: bool
    given: int = 0  # cases in the answer
    cases: tuple[CaseResult, ...] = ()  # what became of the first three
    asked: tuple[Goal, ...] = ()  # what three cases can cover
    met: frozenset[Goal] = frozenset()
    problem: str = ""

    @property
    def coverage(self) -> float:
        """The share of what three cases can cover that the right ones do."""
        return len(self.met) / len(self.asked) if self.asked else 1.0


def messages(op: Operation) -> list[dict[str, Any]]:
    """The task as chat messages: one short system sentence, then `METHOD path id` and the compact schema."""
    return asking(SYSTEM, op)


def response_schema() -> dict[str, Any]:
    """JSON Schema of an answer, for `response_format` (guided decoding)."""
    case = {
        "type": "object",
        "properties": {"name": {"type": "string", "maxLength": 80}, "payload": {}},
        "required": ["name", "payload"],
        "additionalProperties": False,
    }
    return answer_schema(case, ASKED)


def grade(schema: dict[str, Any], completion: str) -> CasesGrade:
    """Score of an answer: right and distinct cases / max(3, cases), times the share of the goals that they reach.

    Right: the validator takes the payload. Distinct: its JSON, members sorted, is not that of an earlier right case.
    The goals are those of `coverage`; a schema without any is covered by whatever is valid. Time and size are bounded.

    Raises:
        SourceError: the schema itself is not usable.
    """
    validator = compiled(schema)
    cases, problem = read_cases(completion)
    if problem:
        return CasesGrade(score=0.0, valid_json=problem == NO_CASES, problem=problem)
    seen: set[bytes] = set()
    right: list[Any] = []
    results = []
    for case in cases[:ASKED]:
        results.append(_case(validator, case, seen))
        if results[-1].outcome == "valid":
            right.append(case["payload"])
    asked = goals(schema)
    reached = frozenset(met(asked, schema, right))
    found = CasesGrade(score=0.0, valid_json=True, given=len(cases), cases=tuple(results), asked=asked, met=reached)
    return msgspec.structs.replace(found, score=len(right) / max(ASKED, len(cases)) * found.coverage)


def _case(validator: jsonschema_rs.Draft202012Validator, case: Any, seen: set[bytes]) -> CaseResult:
    name = case.get("name") if isinstance(case, dict) else None
    if not isinstance(name, str) or not name or "payload" not in case:
        return CaseResult(name=str(name or "")[:80], outcome="malformed")
    name = name[:80]
    try:
        broken = signature_by(validator, case["payload"])
        said = orjson.dumps(case["payload"], option=orjson.OPT_SORT_KEYS)
    except Undecided:
        return CaseResult(name=name, outcome="undecided")
    except (ValueError, TypeError):  # deeper than the validator or the encoder goes
        return CaseResult(name=name, outcome="malformed")
    if broken:
        return CaseResult(name=name, outcome="invalid_payload", signature=broken)
    if said in seen:
        return CaseResult(name=name, outcome="duplicate")
    seen.add(said)
    return CaseResult(name=name, outcome="valid")
