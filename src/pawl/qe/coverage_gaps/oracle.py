"""The oracle of `coverage-analysis`: the gaps are found by running the tests, and the calls by running those."""

from __future__ import annotations

import ast
import warnings
from collections.abc import Sequence
from typing import Any

from pawl import sandbox
from pawl.qe.coverage_gaps.gaps import f1, named, reach, reached_by_calls
from pawl.qe.coverage_gaps.prompt import Asked
from pawl.qe.judged_task import Judged
from pawl.qe.python_code.observing import observation

MOST_CALLS = 8
FOUND, CLOSED = 0.5, 0.5  # what finding the gaps and closing them weigh
_ENOUGH = 0.8  # from here on a share is no failure


def response_schema() -> dict[str, Any]:
    """JSON Schema of an answer."""
    numbers = {"type": "integer", "minimum": 1, "maximum": 9999}
    outcome = {"type": "string", "pattern": "^[0-9]{1,4}:(true|false)$"}
    call = {"type": "string", "minLength": 3, "maxLength": 400}
    return {
        "type": "object",
        "properties": {
            "lines": {"type": "array", "items": numbers, "maxItems": 200},
            "branches": {"type": "array", "items": outcome, "maxItems": 200},
            "calls": {"type": "array", "items": call, "maxItems": MOST_CALLS},
        },
        "required": ["lines", "branches", "calls"],
        "additionalProperties": False,
    }


def score_of(found: float, closed: float) -> float:
    """Half for naming the gaps (F1), half for the share of the reachable ones that the calls reach."""
    return FOUND * found + CLOSED * closed


def judged(asked: Asked, answer: dict[str, Any] | None) -> Judged:
    """An answer held against what running the tests and the calls shows. `answer` is of the schema, or None.

    A gap that no known call reaches may be out of reach: it is to be named, and need not be closed.

    Raises:
        CannotGrade: no sandbox that will do.
    """
    sandbox.best()
    code = asked.snippet.code
    seen = reach(code, asked.tests)
    gaps = seen.gaps
    told = answer or {"lines": [], "branches": [], "calls": []}
    said = named(told["lines"], told["branches"])
    good = [c for c in told["calls"] if is_call(c, asked.snippet.entry)]
    reached = reached_by_calls(code, tuple(good)).reached if good else frozenset()
    known = observation(asked.snippet)
    reachable = gaps & (reached | (named(known.reachable_lines, known.reachable) if known else frozenset()))
    found = f1(said, gaps)
    # Where nobody knows of a gap that can be closed, naming them is all there is.
    closed = len(gaps & reached) / len(reachable) if reachable else found
    metrics = {
        "gap_f1": found,
        "gap_precision": len(said & gaps) / len(said) if said else 0.0,
        "gap_recall": len(said & gaps) / len(gaps) if gaps else 1.0,
        "closed": closed,
        "calls_valid": len(good) / len(told["calls"]) if told["calls"] else 0.0,
    }
    failure = _failure(told["calls"], good, said, gaps, found, closed)
    problem = _problem(said, gaps, reachable - reached) if failure else ""
    return Judged(score=score_of(found, closed), metrics=metrics, failure=failure, problem=problem)


def _failure(
    calls: Sequence[str], good: Sequence[str], said: frozenset[str], gaps: frozenset[str], found: float, closed: float
) -> str:
    if found < _ENOUGH:
        return "misses_gaps" if len(gaps - said) >= len(said - gaps) else "invents_gaps"
    if len(good) < len(calls):
        return "bad_calls"
    return "does_not_close" if closed < _ENOUGH else ""


def _problem(said: frozenset[str], gaps: frozenset[str], left: frozenset[str]) -> str:
    parts = [("missed", gaps - said), ("not gaps", said - gaps), ("not closed", left)]
    return "; ".join(f"{what}: {', '.join(sorted(which)[:6])}" for what, which in parts if which)


def is_call(text: str, entry: str) -> bool:
    """Whether a text is one call of that function, on one line, with nothing but literals for arguments.

    Anything else could reach lines by other means than the function's own arguments.
    """
    try:
        with warnings.catch_warnings(action="ignore"):
            node = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == entry):
        return False
    try:
        for argument in [*node.args, *(k.value for k in node.keywords)]:
            ast.literal_eval(argument)
    except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError):
        return False
    return True
