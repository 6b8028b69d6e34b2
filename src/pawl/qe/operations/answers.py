"""The form that answers about operations share: JSON with a list `test_cases`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson

from pawl.qe.item import Part

MAX_COMPLETION_BYTES = 64 * 1024
NO_CASES = "no list `test_cases`"
_TOO_LONG = "longer than"


def answer_schema(case: dict[str, Any], asked: int) -> dict[str, Any]:
    """JSON Schema of an answer of `asked` cases, for `response_format` (guided decoding)."""
    return {
        "type": "object",
        "properties": {"test_cases": {"type": "array", "items": case, "minItems": asked, "maxItems": asked}},
        "required": ["test_cases"],
        "additionalProperties": False,
    }


def read_cases(completion: str) -> tuple[list[Any], str]:
    """The cases of an answer, at least one, and ""; or none, and what is wrong with its form."""
    if len(completion) > MAX_COMPLETION_BYTES or len(completion.encode(errors="replace")) > MAX_COMPLETION_BYTES:
        return [], f"{_TOO_LONG} {MAX_COMPLETION_BYTES} bytes"
    try:
        answer = orjson.loads(completion)
    except ValueError as error:  # lone surrogates arrive here too
        return [], f"not JSON: {error}"[:120]
    cases = answer.get("test_cases") if isinstance(answer, dict) else None
    return (cases, "") if isinstance(cases, list) and cases else ([], NO_CASES)


def parts_of(completion: str, outcomes: Sequence[str], right: str) -> list[Part]:
    """The cases of an answer with what an oracle found of each; those that it does not look at are left out."""
    cases, _ = read_cases(completion)
    pairs = zip(cases, outcomes, strict=False)
    return [Part(entry=case, problem="" if outcome == right else outcome) for case, outcome in pairs]


def form_failure(problem: str, completion: str) -> str:
    """A short label of what `read_cases` found wrong with an answer."""
    if problem == NO_CASES:
        return "no_test_cases"
    if problem.startswith(_TOO_LONG):
        return "too_long"
    # Prose around an answer and an answer that was cut off are different faults of a model.
    return "prose_around_json" if "{" in completion and not completion.lstrip().startswith("{") else "not_json"
