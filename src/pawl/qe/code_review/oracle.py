"""Whether a review points at what the fix that followed changed back, and stays silent on clean changes."""

from __future__ import annotations

from typing import Any

from pawl.qe.code_review.prompt import KINDS
from pawl.qe.judged_task import Judged

CLEAN = "clean"
_NEAR = 1  # lines
_KIND = 0.3  # of the score of what was found, where the kind is known
MOST_FINDINGS = 6


def response_schema() -> dict[str, Any]:
    """JSON Schema of an answer."""
    finding = {
        "type": "object",
        "properties": {
            "line": {"type": "integer", "minimum": 0, "maximum": 10_000_000},
            "kind": {"enum": list(KINDS)},
            "why": {"type": "string", "maxLength": 200},
        },
        "required": ["line", "kind", "why"],
        "additionalProperties": False,
    }
    return {
        "type": "object",
        "properties": {"findings": {"type": "array", "items": finding, "maxItems": MOST_FINDINGS}},
        "required": ["findings"],
        "additionalProperties": False,
    }


def judged(known: Any, answer: dict[str, Any] | None) -> Judged:
    """Faults found within a line of where they are, all of the score with their kind; findings elsewhere cost.

    Metrics of a faulty change: `recall` (share of the faults that a finding is within one line of), `precision`
    (share of the findings that are), `kind` (share of the faults whose kind is known that such a finding names). Of a
    clean one: `false_alarm_free`. Two findings about one fault count as one that is right and one that is not.
    """
    truths = list(known["findings"])
    label = (truths[0]["kind"] or "other") if truths else CLEAN
    if not truths:
        named = answer["findings"] if answer else []
        free = float(not named)
        said = named[0]["kind"] if named else CLEAN if answer else ""
        failure, problem = ("", "") if not named else ("false_alarm", "the change is clean")
        metrics = {"false_alarm_free": free}
        return Judged(score=free, metrics=metrics, failure=failure, problem=problem, label=label, said=said)
    parts = ["recall", "precision", *(["kind"] if any(t["kind"] for t in truths) else [])]
    if answer is None:
        return Judged(score=0.0, metrics=dict.fromkeys(parts, 0.0), label=label)
    named = answer["findings"]
    pairs = _paired(truths, named)
    told = [t for t in truths if t["kind"]]
    same = sum(f["kind"] == t["kind"] for t, f in pairs if t["kind"])
    figures = {
        "recall": len(pairs) / len(truths),
        "precision": len(pairs) / len(named) if named else 0.0,
        "kind": same / len(told) if told else 0.0,
    }
    worth = sum(1.0 if not t["kind"] or f["kind"] == t["kind"] else 1.0 - _KIND for t, f in pairs)
    where = ", ".join(f"{t['kind'] or 'fault'} at line {t['line']}" for t in truths)
    failure = ""
    if not named:
        failure = "missed"
    elif not pairs:
        failure = "wrong_line"
    elif len(pairs) < len(truths):
        failure = "missed"
    elif len(pairs) < len(named):
        failure = "extra_finding"
    elif same < len(told):
        failure = "wrong_kind"
    first = pairs[0][1] if pairs else named[0] if named else None
    return Judged(
        score=worth / max(len(truths), len(named)),
        metrics={p: figures[p] for p in parts},
        failure=failure,
        problem=where if failure else "",
        label=label,
        said=first["kind"] if first else CLEAN,
    )


def _paired(truths: list[Any], named: list[Any]) -> list[tuple[Any, Any]]:
    """Each fault with a finding of its own that is near enough, one of its kind where there is one."""
    left = list(named)
    found = []
    for t in truths:
        near = [f for f in left if abs(f["line"] - t["line"]) <= _NEAR]
        best = max(near, key=lambda f: (f["kind"] == t["kind"], -abs(f["line"] - t["line"])), default=None)
        if best is not None:
            left.remove(best)
            found.append((t, best))
    return found
