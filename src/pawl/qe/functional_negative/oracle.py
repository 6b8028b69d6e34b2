"""The task `functional-negative`: prompt, answer format, and the grader that is its oracle.

An agent gets one HTTP operation with the JSON Schema of its body and writes three test cases that the operation must
refuse. The oracle is the schema itself: a case is right when a validator really rejects its payload.
"""

from __future__ import annotations

from typing import Any

import jsonschema_rs
import msgspec

from pawl.qe.operations.answers import NO_CASES, answer_schema, read_cases
from pawl.qe.operations.operation import Operation
from pawl.qe.operations.prompt import asking
from pawl.qe.operations.validator import Undecided, compiled, signature_by

ASKED = 3
_MAX_CASES = 12  # graded; further ones only enlarge the denominator
_SENSIBLE = (400, 422)

SYSTEM = (
    "Write 3 negative API test cases as compact JSON: "
    '{"test_cases":[{"name":"...","payload":{...},"expected_status":400}]}'
)


class CaseResult(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one generated test case."""

    name: str
    outcome: str  # rejected_as_expected, wrongly_accepted, duplicate, bad_status, malformed
    signature: str = ""  # which rule at which place the payload breaks


class CasesGrade(msgspec.Struct, frozen=True, kw_only=True):
    """An answer's score: the share of its cases that are right and distinct, 0..1."""

    score: float
    valid_json: bool
    cases: tuple[CaseResult, ...] = ()
    problem: str = ""


def messages(op: Operation) -> list[dict[str, Any]]:
    """The task as chat messages: one short system sentence, then `METHOD path id` and the compact schema."""
    return asking(SYSTEM, op)


def response_schema() -> dict[str, Any]:
    """JSON Schema of an answer, for `response_format` (guided decoding)."""
    case = {
        "type": "object",
        "properties": {
            "name": {"type": "string", "maxLength": 80},
            "payload": {},
            "expected_status": {"type": "integer", "enum": list(_SENSIBLE)},
        },
        "required": ["name", "payload", "expected_status"],
        "additionalProperties": False,
    }
    return answer_schema(case, ASKED)


def grade(schema: dict[str, Any], completion: str) -> CasesGrade:
    """Score of an answer: right and distinct cases / max(3, cases).

    Right: the validator rejects the payload, and the expected status is 400 or 422. Distinct: what it breaks was not
    broken in the same way by an earlier right case. Time and size are bounded.

    Raises:
        SourceError: the schema itself is not usable.
    """
    validator = compiled(schema)
    cases, problem = read_cases(completion)
    if problem:
        return CasesGrade(score=0.0, valid_json=problem == NO_CASES, problem=problem)
    seen: set[str] = set()
    results = tuple(_case(validator, c, seen) for c in cases[:_MAX_CASES])
    right = sum(r.outcome == "rejected_as_expected" for r in results)
    return CasesGrade(score=right / max(ASKED, len(cases)), valid_json=True, cases=results)


def _case(validator: jsonschema_rs.Draft202012Validator, case: Any, seen: set[str]) -> CaseResult:
    name = case.get("name") if isinstance(case, dict) else None
    if not isinstance(name, str) or not name or "payload" not in case:
        return CaseResult(name=str(name or "")[:80], outcome="malformed")
    name = name[:80]
    try:
        broken = signature_by(validator, case["payload"])
    except Undecided:
        return CaseResult(name=name, outcome="undecided")
    except ValueError:
        return CaseResult(name=name, outcome="malformed")
    status = case.get("expected_status")
    if not broken:
        return CaseResult(name=name, outcome="wrongly_accepted")
    if type(status) is not int or status not in _SENSIBLE:
        return CaseResult(name=name, outcome="bad_status", signature=broken)
    if broken in seen:
        return CaseResult(name=name, outcome="duplicate", signature=broken)
    seen.add(broken)
    return CaseResult(name=name, outcome="rejected_as_expected", signature=broken)
