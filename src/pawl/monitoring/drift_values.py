"""From a session to the numbers that drift is looked for in: what was asked, what was answered, what came of it (pure).

A session counts once a day, with what it did in its first quarter of an hour: calls of one session resemble each
other, and sessions are what the test takes as independent.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from math import log, log1p
from typing import Any, Literal

import msgspec

from pawl.qe.task import Task, text_of, user_text

Kind = Literal[
    "input_fields", "input_length", "input_embedding",
    "output_length", "output_form", "output_class",
    "quality", "feedback_rate",
]  # fmt: skip
KINDS: dict[Kind, str] = {
    "input_fields": "surprise at the fields present in a request",
    "input_length": "length of what users ask, characters",
    "input_embedding": "distance of a request from the kinds of request that were usual",
    "output_length": "length of answers, characters",
    "output_form": "share of answers of the promised form",
    "output_class": "surprise at the class of an answer",
    "quality": "mean score of outcomes, 0 to 1",
    "feedback_rate": "share of answers that feedback came about in time",
}
FIT = 100  # sessions that fields, embedding and classes learn from what is usual; those are never ranked
_LONGEST = 20_000  # characters of a text that are looked at for its fields
_LABEL = re.compile(r"^([A-Za-z][\w ]{0,30}):(?:\s|$)", re.MULTILINE)


class Call(msgspec.Struct, frozen=True, kw_only=True):
    """One answered request of a session. The texts are empty where only feedback is asked about."""

    arm: str
    ok: bool  # somebody got a whole answer
    messages: list[dict[str, Any]] = []
    completion: str = ""
    task: dict[str, Any] = {}
    endpoint: str = "chat"
    tools: bool = False
    outcome: float | None = None  # mean score of the outcomes that came in time
    told: bool = False  # whether any feedback did


class Session(msgspec.Struct, frozen=True, kw_only=True):
    """What one session did in its first quarter of an hour of a day."""

    id: str
    at: float  # epoch seconds of its first call of that day
    calls: tuple[Call, ...]


class Number(msgspec.Struct, frozen=True):
    """`ranked` goes into the test, `shown` is what people read; for learnt kinds both come after fitting."""

    ranked: float
    shown: float


def asked(session: Session) -> Call:
    """The call whose request stands for the session's."""
    return session.calls[0]


def plain(session: Session, task: Task, champion: str, late: bool) -> dict[Kind, Number]:
    """The numbers that need nothing learnt. Answers are those of the champion alone. `late`: of feedback, else of
    requests and answers."""
    whole = [c for c in session.calls if c.ok and c.arm == champion]
    found: dict[Kind, Number] = {}
    if late:
        if whole:
            found["feedback_rate"] = _same(_mean([float(c.told) for c in whole]))
        if scores := [c.outcome for c in whole if c.outcome is not None]:
            found["quality"] = _same(_mean(scores))
        return found
    found["input_length"] = _length(len(user_text(asked(session).messages)))
    if whole:
        found["output_length"] = _length(_mean([float(len(c.completion)) for c in whole]))
        found["output_form"] = _same(_mean([float(task.conforms(c.completion)) for c in whole]))
    return found


def fields_of(call: Call) -> str:
    """Which fields a request has, as a digest: roles, parts, metadata, labels at line starts, keys of JSON in it."""
    roles: list[str] = []
    keys: set[str] = set()
    for m in call.messages:
        content = m.get("content")
        form = "parts" if isinstance(content, list) else "text"
        role = f"{m.get('role')}/{form}" + ("/tools" if m.get("tool_calls") else "")
        if not roles or roles[-1] != role:
            roles.append(role)
        if m.get("role") == "user":
            text = text_of(content)[:_LONGEST]
            keys.update(f"label {label}" for label in _LABEL.findall(text))
            keys.update(f"key {key}" for key in _json_keys(text))
    told = {f"task {name}" for name in call.task}
    every = [call.endpoint, str(call.tools), *roles[:8], *sorted(keys | told)]
    return hashlib.sha256("\0".join(every).encode()).hexdigest()[:16]


def class_of(session: Session, task: Task, champion: str) -> str | None:
    """The scenario class of the champion's first whole answer; None without one."""
    for c in session.calls:
        if c.ok and c.arm == champion:
            return task.scenario_of(c.messages, c.completion)
    return None


def surprise(counts: dict[str, int], name: str) -> float:
    """How unusual a class is, in nats, by what was counted: additive smoothing, one for all that was not seen."""
    return log((sum(counts.values()) + 1) / (counts.get(name, 0) + 1))


def _json_keys(text: str) -> set[str]:
    """Keys of the first JSON object in a text, one level into it; none where there is none."""
    start = text.find("{")
    if start < 0:
        return set()
    try:
        found, _ = json.JSONDecoder().raw_decode(text, start)
    except (ValueError, RecursionError):
        return set()
    return set(found) if isinstance(found, dict) else set()


def _length(characters: float) -> Number:
    return Number(log1p(characters), characters)


def _same(value: float) -> Number:
    return Number(value, value)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
