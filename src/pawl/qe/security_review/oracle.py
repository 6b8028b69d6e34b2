"""Whether a review names the weakness of the vulnerable code, and stays silent on the same code once it is mended."""

from __future__ import annotations

from typing import Any

from pawl.qe.judged_task import Judged
from pawl.qe.security_review.weaknesses import SEVERITIES, WEAKNESSES, cwe

SECURE = "secure"
_SEVERITY = 0.2  # of the score of vulnerable code, where its severity is known
_DETECTED = 0.3  # of the score, where the code is rightly called vulnerable but by another class
_UNTIDY = 0.7  # of the score, where secure code is called secure and yet given a class, a severity or a fix


def truth(known_cwe: str | None, severity: str = "") -> dict[str, Any]:
    """The truth of an item; `known_cwe` is None for secure code. Severity as given, or the table's, or ""."""
    if known_cwe is None:
        return {"cwe": None, "severity": "none"}
    listed = WEAKNESSES.get(known_cwe)
    return {"cwe": known_cwe, "severity": severity or (listed.severity if listed else "")}


def response_schema() -> dict[str, Any]:
    """JSON Schema of an answer."""
    return {
        "type": "object",
        "properties": {
            "vulnerable": {"type": "boolean"},
            "cwe": {"anyOf": [{"type": "string", "pattern": "^CWE-[0-9]{1,4}$"}, {"type": "null"}]},
            "severity": {"enum": list(SEVERITIES)},
            "fix": {"type": "string", "maxLength": 200},
        },
        "required": ["vulnerable", "cwe", "severity", "fix"],
        "additionalProperties": False,
    }


def said_class(answer: dict[str, Any]) -> str:
    """The class that an answer names: a CWE number, `secure`, or `vulnerable` without a number."""
    if not answer["vulnerable"]:
        return SECURE
    return (cwe(answer["cwe"]) if answer["cwe"] else None) or "vulnerable"


def judged(known: Any, answer: dict[str, Any] | None) -> Judged:
    """The class counts most, its severity a fifth; any alarm on secure code scores nothing.

    Metrics of vulnerable code: `detected`, `class_match` and, where known, `severity`; of secure code:
    `false_alarm_free`. What `fix` says is not judged.
    """
    right, severity = known["cwe"], str(known["severity"])
    if right is None:
        return _of_secure(answer)
    parts = ["detected", "class_match", *(["severity"] if severity else [])]
    if answer is None:
        return Judged(score=0.0, metrics=dict.fromkeys(parts, 0.0), label=right)
    said = said_class(answer)
    detected, same = bool(answer["vulnerable"]), said == right
    grave = detected and answer["severity"] == severity
    figures = {"detected": float(detected), "class_match": float(same), "severity": float(grave)}
    score, failure, problem = 1.0, "", ""
    if not detected:
        score, failure, problem = 0.0, "missed", f"it is {right}"
    elif not same:
        score, failure, problem = _DETECTED, "wrong_class", f"it is {right}"
    elif severity and not grave:
        score, failure, problem = 1 - _SEVERITY, "wrong_severity", f"it is {severity}"
    metrics = {p: figures[p] for p in parts}
    return Judged(score=score, metrics=metrics, failure=failure, problem=problem, label=right, said=said)


def _of_secure(answer: dict[str, Any] | None) -> Judged:
    if answer is None:
        return Judged(score=0.0, metrics={"false_alarm_free": 0.0}, label=SECURE)
    said = said_class(answer)
    if answer["vulnerable"]:
        return Judged(
            score=0.0,
            metrics={"false_alarm_free": 0.0},
            failure="false_alarm",
            problem="it is secure",
            label=SECURE,
            said=said,
        )
    tidy = answer["cwe"] is None and answer["severity"] == "none" and not answer["fix"]
    return Judged(
        score=1.0 if tidy else _UNTIDY,
        metrics={"false_alarm_free": 1.0},
        failure="" if tidy else "secure_with_class",
        label=SECURE,
        said=said,
    )
