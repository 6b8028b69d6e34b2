"""What an importer makes of one row: records, or a reject with its reason."""

from __future__ import annotations

import datetime as dt
import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from pawl.lake.records import Feedback, Interaction, Record


class Reject(NamedTuple):
    """A row that says too little, or nothing that can be understood."""

    row: int  # from 1, as an editor counts lines or entries
    reason: str


class Target(NamedTuple):
    """What the file itself does not say."""

    agent: str
    key_id: str  # whose import it is
    find_agent: Callable[[str], str | None] = lambda interaction: None  # of an interaction that is in the lake


Rows = Iterator[list[Record] | Reject]
Reader = Callable[[Path, Target], Rows]


class Problem(ValueError):
    """Why a row cannot be taken; importers turn it into a Reject."""


def interaction(target: Target, source: str, row: dict[str, Any]) -> Interaction:
    """A record of a call that another tool saw. The same row imported again has the same id.

    `row`: id, at (epoch seconds), model, messages, completion, and what else is known. Problem where it is not enough.
    """
    messages, completion = row.get("messages"), row.get("completion")
    if not isinstance(messages, list) or not messages or not all(isinstance(m, dict) for m in messages):
        raise Problem("no messages")
    if not isinstance(completion, str):
        raise Problem("no answer")
    known, task = row.get("id"), row.get("task")
    named = str(known) if known else msgspec.json.encode([messages, completion, row.get("at")]).decode()
    return Interaction(
        id=f"import-{hashlib.sha256(f'{source}:{named}'.encode()).hexdigest()[:32]}",
        at=row["at"],
        agent=target.agent,
        session=str(row.get("session") or ""),
        key_id=target.key_id,
        arm=str(row.get("model") or "unknown"),
        arm_kind="cloud",
        reason=f"imported from {source}",
        messages=messages,
        completion=completion,
        tool_calls=row.get("tool_calls") or [],
        finish_reason=row.get("finish_reason"),
        prompt_tokens=_count(row.get("prompt_tokens")),
        completion_tokens=_count(row.get("completion_tokens")),
        cost_usd=_amount(row.get("cost_usd")),
        latency_s=_amount(row.get("latency_s")),
        task=task if isinstance(task, dict) else {},
    )


def feedback(
    target: Target,
    source: str,
    about: str,
    agent: str,
    at: float,
    *,
    kind: str,
    score: float | None,
    detail: Any = None,
) -> Feedback:
    """Feedback that another tool recorded. Problem where the score is none of 0 to 1."""
    if score is not None and not 0 <= score <= 1:
        raise Problem(f"the score {score:g} is not between 0 and 1")
    named = msgspec.json.encode([source, about, at, kind, score]).decode()
    return Feedback(
        id=f"import-{hashlib.sha256(named.encode()).hexdigest()[:32]}",
        at=at,
        interaction=about,
        agent=agent,
        kind=kind,  # type: ignore[arg-type]
        score=score,
        detail=detail if isinstance(detail, dict) else {},
        source=f"import:{source}",
        key_id=target.key_id,
    )


def moment(value: Any) -> float:
    """Epoch seconds of a number (seconds or milliseconds) or an ISO 8601 text. Problem otherwise."""
    if isinstance(value, bool):
        raise Problem(f"{value!r} is no time")
    if isinstance(value, int | float):
        return float(value) / 1000 if value > 1e11 else float(value)
    if isinstance(value, str):
        try:
            made = dt.datetime.fromisoformat(value.replace("Z", "+00:00"))
        except ValueError as e:
            raise Problem(f"{value!r} is no time") from e
        return (made if made.tzinfo else made.replace(tzinfo=dt.UTC)).timestamp()
    raise Problem("no time")


def messages_of(value: Any) -> list[dict[str, Any]]:
    """Messages from the shapes in which tools keep a prompt: a list, {"messages": ...}, or a text."""
    if isinstance(value, dict):
        value = value.get("messages", value.get("prompt", value.get("input")))
    if isinstance(value, str) and value:
        return [{"role": "user", "content": value}]
    if isinstance(value, list) and value and isinstance(value[0], list):
        value = value[0]  # LangChain keeps a batch of one
    if isinstance(value, list) and value and all(isinstance(m, dict) for m in value):
        return [_message(m) for m in value]
    raise Problem("no messages")


def text_of(value: Any) -> str:
    """The answer's text from the shapes in which tools keep it. Problem where there is none."""
    if isinstance(value, str):
        return value
    if isinstance(value, list) and value:
        return text_of(value[0])
    if isinstance(value, dict):
        for name in ("content", "text", "choices", "message", "generations", "output", "completion", "kwargs"):
            if value.get(name):
                return text_of(value[name])
    raise Problem("no answer")


def _message(m: dict[str, Any]) -> dict[str, Any]:
    inner = m.get("kwargs") if isinstance(m.get("kwargs"), dict) else m  # LangChain's serialised messages
    assert isinstance(inner, dict)
    roles = {"human": "user", "ai": "assistant", "system": "system", "tool": "tool", "function": "tool"}
    role = inner.get("role") or roles.get(str(inner.get("type") or ""))
    if role is None and isinstance(m.get("id"), list):
        role = roles.get(str(m["id"][-1]).removesuffix("Message").lower())
    if not isinstance(role, str) or "content" not in inner:
        raise Problem("a message without role or content")
    return {"role": role, "content": inner["content"]}


def _count(value: Any) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else 0


def _amount(value: Any) -> float:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) and value >= 0 else 0.0
