"""The task `functional-negative`: prompt, answer format, and the grader that is its oracle.

An agent gets one HTTP operation with the JSON Schema of its body and writes three test cases that the operation must
refuse. The oracle is the schema itself: a case is right when a validator really rejects its payload.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache
from itertools import islice
from typing import Any

import jsonschema_rs
import msgspec
import orjson

from pawl.errors import SourceError
from pawl.qe.operations.operation import Operation
from pawl.qe.task import text_of

ASKED = 3
MAX_COMPLETION_BYTES = 64 * 1024
MAX_SCHEMA_BYTES = 64 * 1024
_MAX_CASES = 12  # graded; further ones only enlarge the denominator
_MAX_ERRORS = 6  # of one payload that make its signature
_SENSIBLE = (400, 422)
# Real-world patterns can backtrack for ever; at 10,000 steps one costs about 0.2 ms.
_REGEX = jsonschema_rs.FancyRegexOptions(backtrack_limit=10_000, size_limit=4_000_000)
_UNDECIDED = ("BacktrackLimitExceeded", "RegexEngineFailure")

SYSTEM = (
    "Write 3 negative API test cases as compact JSON: "
    '{"test_cases":[{"name":"...","payload":{...},"expected_status":400}]}'
)
# The first is the one that `messages` writes; the others are the same in other words, for variants of examples.
_HEADS = tuple(
    re.compile(head)
    for head in (
        r"(?P<method>[A-Z]+) (?P<path>\S+) (?P<id>\S+)",
        r"Operation (?P<id>\S+): (?P<method>[A-Z]+) (?P<path>\S+)",
        r"(?P<method>[A-Z]+) (?P<path>\S+) \(operation (?P<id>\S+)\)",
    )
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


class Undecided(Exception):
    """The validator reached its backtracking bound before it knew."""


def messages(op: Operation) -> list[dict[str, Any]]:
    """The task as chat messages: one short system sentence, then `METHOD path id` and the compact schema."""
    schema = orjson.dumps(op.schema).decode()
    return [
        {"role": "system", "content": SYSTEM},
        {"role": "user", "content": f"{op.method} {op.path} {op.id}\n{schema}"},
    ]


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
    return {
        "type": "object",
        "properties": {"test_cases": {"type": "array", "items": case, "minItems": ASKED, "maxItems": ASKED}},
        "required": ["test_cases"],
        "additionalProperties": False,
    }


def parse_task(messages: list[dict[str, Any]]) -> Operation:
    """The operation that a prompt asks about, read from its last user message.

    Raises:
        SourceError: the prompt is not one of this task, so that its answer cannot be graded.
    """
    text = next((text_of(m.get("content")) for m in reversed(messages) if m.get("role") == "user"), "")
    head, _, body = text.strip().partition("\n")
    match = next((m for form in _HEADS if (m := form.fullmatch(head.strip()))), None)
    if match is None or len(body.encode(errors="replace")) > MAX_SCHEMA_BYTES:
        raise SourceError(
            "not a functional-negative prompt: the user message must be `METHOD path id`, a line break, and the "
            f"JSON Schema of the body (at most {MAX_SCHEMA_BYTES} bytes)"
        )
    try:
        schema = orjson.loads(body)
    except ValueError as error:
        raise SourceError(f"the prompt's JSON Schema is not JSON: {error}") from error
    if not isinstance(schema, dict):
        raise SourceError("the prompt's JSON Schema must be a JSON object")
    name = match["id"]
    return Operation(id=name, source=name.partition(".")[0], method=match["method"], path=match["path"], schema=schema)


def grade(schema: dict[str, Any], completion: str) -> CasesGrade:
    """Score of an answer: right and distinct cases / max(3, cases).

    Right: the validator rejects the payload, and the expected status is 400 or 422. Distinct: what it breaks was not
    broken in the same way by an earlier right case. Time and size are bounded.

    Raises:
        SourceError: the schema itself is not usable.
    """
    validator = compiled(schema)
    if len(completion) > MAX_COMPLETION_BYTES or len(completion.encode(errors="replace")) > MAX_COMPLETION_BYTES:
        return CasesGrade(score=0.0, valid_json=False, problem=f"longer than {MAX_COMPLETION_BYTES} bytes")
    try:
        answer = orjson.loads(completion)
    except ValueError as error:  # lone surrogates arrive here too
        return CasesGrade(score=0.0, valid_json=False, problem=f"not JSON: {error}"[:120])
    cases = answer.get("test_cases") if isinstance(answer, dict) else None
    if not isinstance(cases, list) or not cases:
        return CasesGrade(score=0.0, valid_json=True, problem="no list `test_cases`")
    seen: set[str] = set()
    results = tuple(_case(validator, c, seen) for c in cases[:_MAX_CASES])
    right = sum(r.outcome == "rejected_as_expected" for r in results)
    return CasesGrade(score=right / max(ASKED, len(cases)), valid_json=True, cases=results)


def signature(schema: dict[str, Any], payload: Any) -> str:
    """Which rules at which places a payload breaks; empty where it breaks none.

    Raises:
        Undecided: only a bounded pattern said no.
        SourceError: the schema is not usable.
        ValueError: the payload is nested deeper than the validator goes.
    """
    return _signature(compiled(schema), payload)


@lru_cache(maxsize=16384)
def pattern_compiles(pattern: str) -> bool:
    """Whether the validator's engine takes this pattern."""
    try:
        jsonschema_rs.Draft202012Validator({"pattern": pattern}, pattern_options=_REGEX, offline=True)
    except ValueError:
        return False
    return True


def compiled(schema: dict[str, Any]) -> jsonschema_rs.Draft202012Validator:
    """The validator of a schema; kept for the next answer to the same operation.

    Raises:
        SourceError: not a JSON Schema 2020-12, or one that refers to the outside.
    """
    try:
        key = orjson.dumps(schema)
    except TypeError as error:  # nested deeper than the encoder goes
        raise SourceError(f"not a usable JSON Schema 2020-12: {error}") from error
    return _validator(key)


def _case(validator: jsonschema_rs.Draft202012Validator, case: Any, seen: set[str]) -> CaseResult:
    name = case.get("name") if isinstance(case, dict) else None
    if not isinstance(name, str) or not name or "payload" not in case:
        return CaseResult(name=str(name or "")[:80], outcome="malformed")
    name = name[:80]
    try:
        broken = _signature(validator, case["payload"])
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


def _signature(validator: jsonschema_rs.Draft202012Validator, payload: Any) -> str:
    errors = list(islice(validator.iter_errors(payload), 4 * _MAX_ERRORS))
    decided = [e for e in errors if not _doubtful(e)]
    if errors and not decided:
        raise Undecided
    return ";".join(sorted({_rule(e) for e in decided[:_MAX_ERRORS]}))


def _rule(error: Any) -> str:
    """Keyword and place; for missing and unexpected members also which, since their place is the parent."""
    kind = error.kind
    which = getattr(kind, "property", None) or getattr(kind, "unexpected", None) or ""
    # Any index of an array is the same place: ten wrong items are one idea, not ten.
    place = "/".join("*" if isinstance(p, int) else str(p) for p in error.instance_path)
    return f"{kind.name}@{place}" + (f":{which}" if which else "")


def _doubtful(error: Any) -> bool:
    """Whether an error only says that a bound was reached, here or in every branch of an anyOf."""
    if type(error.kind).__name__.endswith(_UNDECIDED):
        return True
    branches: Iterable[Any] = getattr(error.kind, "context", None) or ()
    return any(any(_doubtful(e) for e in branch) for branch in branches)


@lru_cache(maxsize=2048)
def _validator(schema: bytes) -> jsonschema_rs.Draft202012Validator:
    try:
        return jsonschema_rs.Draft202012Validator(orjson.loads(schema), pattern_options=_REGEX, offline=True)
    except (ValueError, jsonschema_rs.ReferencingError) as error:
        raise SourceError(f"not a usable JSON Schema 2020-12: {str(error)[:200]}") from error
