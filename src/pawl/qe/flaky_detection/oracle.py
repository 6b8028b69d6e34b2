"""Whether a verdict on a test is the one that thousands of reruns gave, and whether its cause is the known one."""

from __future__ import annotations

from typing import Any

from pawl.qe.flaky_detection.prompt import CAUSES
from pawl.qe.judged_task import Judged

_CAUSE = 0.3  # of the score, where the cause is known


def truth(verdict: str, cause: str = "") -> dict[str, str]:
    """The truth of an item. `cause` is "" where nobody knows it."""
    return {"verdict": verdict, "cause": "none" if verdict == "stable" else cause}


def response_schema() -> dict[str, Any]:
    """JSON Schema of an answer."""
    return {
        "type": "object",
        "properties": {
            "verdict": {"enum": ["flaky", "stable"]},
            "cause": {"enum": ["none", "unknown", *CAUSES]},
            "confidence": {"type": "number", "minimum": 0, "maximum": 1},
        },
        "required": ["verdict", "cause", "confidence"],
        "additionalProperties": False,
    }


def judged(known: Any, answer: dict[str, Any] | None) -> Judged:
    """A wrong verdict scores nothing; a right one all but what the cause is worth, where that is known and another.

    Metrics: `verdict` right or not; `cause` of flaky tests with a known one; `calibration`, one less the squared
    distance of the stated confidence from what came of it (Brier's score, turned round). It is no part of the score.
    """
    verdict, cause = str(known["verdict"]), str(known["cause"])
    graded = verdict == "flaky" and bool(cause)
    parts = ["verdict", "calibration", *(["cause"] if graded else [])]
    if answer is None:
        return Judged(score=0.0, metrics=dict.fromkeys(parts, 0.0), label=verdict)
    right = answer["verdict"] == verdict
    same = not cause or answer["cause"] == cause
    confidence = float(answer["confidence"])
    figures = {"verdict": float(right), "calibration": 1 - (confidence - right) ** 2, "cause": float(right and same)}
    failure, problem = "", ""
    if not right:
        failure = "false_alarm" if verdict == "stable" else "missed"
        problem = f"it is {verdict}"
    elif not same:
        failure = "stable_with_cause" if verdict == "stable" else "wrong_cause"
        problem = f"the cause is {cause}"
    return Judged(
        score=0.0 if not right else 1.0 if same else 1.0 - _CAUSE,
        metrics={p: figures[p] for p in parts},
        failure=failure,
        problem=problem,
        label=verdict,
        said=answer["verdict"],
        confidence=confidence,
    )
