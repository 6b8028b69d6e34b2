"""Whether issues are found where they were labelled, how early, and whether nothing else is alarmed about."""

from __future__ import annotations

from typing import Any

from pawl.qe.judged_task import Judged
from pawl.qe.performance_analyzer.prompt import KINDS, MOST_POINTS, STATUSES

# Labels are uncertain by a point or two at their edges: from this overlap on a window counts as found in full.
_ENOUGH = 0.8
_WRONG_STATUS = 0.5  # of the score
_WRONG_KIND = 0.8
_MOST_ISSUES = 4


def truth(status: str, issues: list[dict[str, Any]]) -> dict[str, Any]:
    """The truth of an item. `status` is "" where only is known that it is not ok; so are `kind` and `metric`."""
    return {"status": status, "issues": issues}


def response_schema() -> dict[str, Any]:
    """JSON Schema of an answer."""
    index = {"type": "integer", "minimum": 0, "maximum": MOST_POINTS - 1}
    issue = {
        "type": "object",
        "properties": {
            "metric": {"type": "string", "maxLength": 40},
            "from": index,
            "to": index,
            "kind": {"enum": list(KINDS)},
        },
        "required": ["metric", "from", "to", "kind"],
        "additionalProperties": False,
    }
    return {
        "type": "object",
        "properties": {
            "status": {"enum": list(STATUSES)},
            "issues": {"type": "array", "items": issue, "maxItems": _MOST_ISSUES},
            "recommendations": {"type": "array", "items": {"type": "string", "maxLength": 120}, "maxItems": 4},
        },
        "required": ["status", "issues", "recommendations"],
        "additionalProperties": False,
    }


def judged(known: Any, answer: dict[str, Any] | None) -> Judged:
    """The overlap of found and labelled points, less for a wrong status or kind; any alarm about what is ok is nothing.

    Metrics where something is wrong: `status`, `overlap` (F1 of points in issues), `lead_time` (1 where an issue is
    found from its first point, less the later, 0 where never), `false_alarm_free` (share of the named issues that
    touch a labelled one), `kind` and `metric` (share of labelled issues, where known; the metric is no part of the
    score). Where all is ok: `status` and `false_alarm_free`.
    """
    status, windows = str(known["status"]), list(known["issues"])
    label = status or "not_ok"
    parts = ["status", "false_alarm_free"]
    if windows:
        parts += ["overlap", "lead_time", *(f for f in ("kind", "metric") if any(w[f] for w in windows))]
    if answer is None:
        return Judged(score=0.0, metrics=dict.fromkeys(parts, 0.0), label=label)
    named = answer["issues"]
    right = answer["status"] == status if status else answer["status"] != "ok"
    said = answer["status"] if status or answer["status"] == "ok" else "not_ok"
    points, hits = _points(named), _points(windows)
    false = sum(not _points([i]) & hits for i in named)
    figures = {
        "status": float(right),
        "false_alarm_free": 1 - false / len(named) if named else 1.0,
        "overlap": 2 * len(points & hits) / (len(points) + len(hits)) if hits else 0.0,
        "lead_time": sum(_lead(w, points) for w in windows) / max(1, len(windows)),
        "kind": _told(windows, named, "kind"),
        "metric": _told(windows, named, "metric"),
    }
    score, failure, problem = _score(figures, windows, named, right, parts)
    metrics = {p: figures[p] for p in parts}
    return Judged(score=score, metrics=metrics, failure=failure, problem=problem, label=label, said=said)


def _score(
    figures: dict[str, float], windows: list[Any], named: list[Any], right: bool, parts: list[str]
) -> tuple[float, str, str]:
    """The score, the gravest failure, and words for people."""
    if not windows:
        alarmed = bool(named) or not right
        return float(not alarmed), "false_alarm" if alarmed else "", "nothing is wrong" if alarmed else ""
    where = ", ".join(f"{w['from']} to {w['to']}" for w in windows)
    if not figures["overlap"]:
        return 0.0, "missed", f"labelled: {where}"
    score = min(1.0, figures["overlap"] / _ENOUGH)
    failure, problem = ("", "") if score == 1 else ("wrong_window", f"labelled: {where}")
    if figures["false_alarm_free"] < 1:
        score, failure, problem = score * figures["false_alarm_free"], "extra_issue", f"labelled: {where}"
    if "kind" in parts and figures["kind"] < 1:
        score *= _WRONG_KIND
        failure, problem = failure or "wrong_kind", problem or ", ".join(w["kind"] for w in windows)
    if not right:
        score *= _WRONG_STATUS
        failure = failure or "wrong_status"
    return score, failure, problem


def _points(issues: list[Any]) -> set[int]:
    return {n for i in issues for n in range(i["from"], i["to"] + 1)}


def _lead(window: Any, points: set[int]) -> float:
    """1 where the window is found from its first point, falling to 0 at its end."""
    length = window["to"] - window["from"] + 1
    first = min((n for n in points if window["from"] <= n <= window["to"]), default=None)
    return 0.0 if first is None else 1 - (first - window["from"]) / length


def _told(windows: list[Any], named: list[Any], field: str) -> float:
    """Share of the labelled issues whose kind or metric is known that an overlapping named issue says right."""
    known = [w for w in windows if w[field]]
    found = sum(any(i[field] == w[field] and _points([i]) & _points([w]) for i in named) for w in known)
    return found / len(known) if known else 0.0
