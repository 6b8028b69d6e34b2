"""What an importer makes of one row: records, or a reject with its reason."""

from __future__ import annotations

import datetime as dt
import hashlib
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from pawl.lake.records import Feedback, Interaction, LakeRecord, Observation

_IDENTITY = re.compile(r"(?<![0-9A-Za-z])(?:chatcmpl-|resp_|import-)[0-9a-f]{32}(?![0-9A-Za-z])")
_YEAR_10000 = 253_402_300_800


class Reject(NamedTuple):
    """A row that says too little, or nothing that can be understood."""

    row: int  # from 1, as an editor counts lines or entries
    reason: str


def _nobody(ids: set[str]) -> dict[str, str]:
    return {}


class Target(NamedTuple):
    """What the file itself does not say."""

    agent: str
    key_id: str  # whose import it is
    find_agents: Callable[[set[str]], Mapping[str, str]] = _nobody  # agent by id, of interactions that are in the lake
    at: float | None = None  # when it was, for exports without a time; otherwise the file's own


Rows = Iterator[list[LakeRecord] | Reject]
Reader = Callable[[Path, Target], Rows]


class Draft(NamedTuple):
    """A row that is about interactions: what it becomes depends on which of them are in the lake."""

    row: int
    about: tuple[str, ...]
    make: Callable[[Mapping[str, str]], list[LakeRecord]]  # from the agents found, by id; Problem where that is too few


class Problem(ValueError):
    """Why a row cannot be taken; importers turn it into a Reject."""


def settle(drafts: Iterable[Draft | Reject], target: Target, batch: int = 20_000) -> Rows:
    """The drafts' records. Interactions are looked up for `batch` rows at once: each look goes through the lake."""
    waiting = iter(drafts)
    while some := list(islice(waiting, batch)):
        ids = {i for d in some if isinstance(d, Draft) for i in d.about}
        agents = target.find_agents(ids) if ids else {}
        for draft in some:
            if isinstance(draft, Reject):
                yield draft
                continue
            try:
                yield draft.make(agents)
            except Problem as e:
                yield Reject(draft.row, str(e))


def owner(agents: Mapping[str, str], about: str) -> str:
    """The agent of an interaction. Problem where it is not in the lake."""
    if about not in agents:
        raise Problem(f"no interaction {about!r} in the lake")
    return agents[about]


def interactions_in(*texts: str) -> tuple[str, ...]:
    """The ids of interactions that the texts name, each once."""
    return tuple(dict.fromkeys(m for text in texts for m in _IDENTITY.findall(text)))


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
    key: str = "",
) -> Feedback:
    """Feedback that another tool recorded. Problem where the score is none of 0 to 1.

    `key`: what else tells it from other feedback of that moment.
    """
    if score is not None and not 0 <= score <= 1:
        raise Problem(f"the score {score:g} is not between 0 and 1")
    named = msgspec.json.encode([source, about, at, kind, score, *filter(None, [key])]).decode()
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


def observation(target: Target, source: str, at: float, *, is_dated: bool = True, **fields: Any) -> Observation:
    """What another tool knows of the system. The same content is the same record: what changed there is another one.

    `is_dated`: the export says when it was; otherwise the time is no part of what the record is known by.
    """
    made = Observation(id="", at=at, agent=target.agent, source=f"import:{source}", key_id=target.key_id, **fields)
    content = msgspec.structs.replace(made, at=at if is_dated else 0.0, key_id="")
    digest = hashlib.sha256(msgspec.json.encode(content, order="deterministic")).hexdigest()
    return msgspec.structs.replace(made, id=f"import-{digest[:32]}")


def moment(value: Any) -> float:
    """Epoch seconds of a number (seconds or milliseconds) or an ISO 8601 text. Problem otherwise."""
    if isinstance(value, bool):
        raise Problem(f"{value!r} is no time")
    if isinstance(value, int | float):
        return _dated(value / 1000 if 1e11 < value < 1e15 else value, value)
    if isinstance(value, str):
        try:
            made = dt.datetime.fromisoformat(value.replace("Z", "+00:00"))
            return _dated((made if made.tzinfo else made.replace(tzinfo=dt.UTC)).timestamp(), value)
        except (ValueError, OverflowError) as e:
            raise Problem(f"{value!r} is no time") from e
    raise Problem("no time")


def written_moment(text: str | None) -> float:
    """As `moment`, of a field that holds either of them as text."""
    if not text:
        raise Problem("no time")
    try:
        number = float(text)
    except ValueError:
        return moment(text)
    return moment(number)


def _dated(seconds: float, value: Any) -> float:
    if not 0 <= seconds < _YEAR_10000:
        raise Problem(f"{value!r} is no time")
    return float(seconds)


def encoding_of(path: Path) -> str:
    """UTF-8, or what the file's first bytes say: some shells write UTF-16."""
    with path.open("rb") as data:
        return "utf-16" if data.read(2) in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"


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
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63 else 0


def _amount(value: Any) -> float:
    is_one = isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < math.inf
    return float(value) if is_one else 0.0
