"""What happens between the steps of a chain: prompts filled in, answers checked and made one (pure)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec
import orjson

from pawl.fleet.chain import PLACE, ChainSpec, CombineSpec, StepSpec
from pawl.gateway.wire import Refused


class Said(msgspec.Struct, frozen=True, kw_only=True):
    """What one agent of a step answered."""

    step: str
    agent: str
    id: str = ""  # of its interaction
    text: str = ""
    conforms: bool = True  # to what the agent promises
    problem: str = ""  # why there is no answer
    status: int = 200
    retry_after_s: float = 0.0  # when it may be asked again, where that was said


class Combined(msgspec.Struct, frozen=True, kw_only=True):
    """The answers of one step as one."""

    text: str
    entries: int = 0
    duplicates: int = 0
    malformed: tuple[str, ...] = ()  # agents whose answer had not the promised form


def filled(prompt: str, told: Mapping[str, str]) -> str:
    """The prompt with each {name} replaced; what an answer says is never read as a place itself."""
    return PLACE.sub(lambda m: told[m[1]] if m[1] in told else m[0], prompt)


def enough(step: StepSpec, said: Sequence[Said]) -> bool:
    """Whether a step got the answers that it wants."""
    return sum(not s.problem for s in said) >= (step.least or len(step.agents))


def combined(spec: CombineSpec | None, said: Sequence[Said]) -> Combined:
    """The answers of a step as one: the entries of their lists in turns, each once, malformed answers left out.

    In turns, so that the bound on entries takes from every agent alike. Without a spec there is one answer, as it is.
    """
    answered = [s for s in said if not s.problem]
    if spec is None:
        return Combined(text=answered[0].text if answered else "")
    lists, malformed = [], []
    for s in answered:
        entries = _entries(s.text, spec.member) if s.conforms else None
        if entries is None:
            malformed.append(s.agent)
        else:
            lists.append(entries)
    seen: set[bytes] = set()
    kept: list[Any] = []
    duplicates = 0
    for entry in _in_turns(lists):
        key = _key(entry, spec.unique_by)
        if key in seen:
            duplicates += 1
        elif len(kept) < spec.most:
            seen.add(key)
            kept.append(entry)
    text = orjson.dumps({spec.member: kept}).decode()
    return Combined(text=text, entries=len(kept), duplicates=duplicates, malformed=tuple(malformed))


def selected(member: str, earlier: str, verdict: str) -> str:
    """The entries of an earlier combined answer that a verdict keeps; all of them where it is no verdict.

    A step that judges may only take away: where its answer cannot be read, nothing is lost.
    """
    entries = _entries(earlier, member) or []
    keep = _entries(verdict, "keep")
    if keep is None:
        return earlier
    numbers = {n for n in keep if type(n) is int}
    return orjson.dumps({member: [e for n, e in enumerate(entries) if n in numbers]}).decode()


def words_of(messages: Sequence[Mapping[str, Any]], text_of: Callable[[Any], str]) -> str:
    """What a client asked of a chain: the text of its last message as a user. Refused(400) where there is none."""
    last = next((m for m in reversed(messages) if m.get("role") == "user"), None)
    text = text_of(last.get("content")) if last else ""
    if not text.strip():
        raise Refused(400, "a chain takes the text of the last message of role user; there is none")
    return text


def answer_of(chain: ChainSpec, told: Mapping[str, str]) -> str:
    """The answer of the whole chain."""
    return told[chain.answer or chain.steps[-1].name]


def _entries(text: str, member: str) -> list[Any] | None:
    try:
        found = orjson.loads(text)
    except ValueError:
        return None
    entries = found.get(member) if isinstance(found, dict) else None
    return [e for e in entries if _writable(e)] if isinstance(entries, list) else None


def _in_turns(lists: Sequence[Sequence[Any]]) -> list[Any]:
    longest = max(map(len, lists), default=0)
    return [entries[n] for n in range(longest) for entries in lists if n < len(entries)]


def _key(entry: Any, unique_by: str | None) -> bytes:
    told = entry.get(unique_by) if unique_by and isinstance(entry, dict) and unique_by in entry else entry
    return orjson.dumps(told, option=orjson.OPT_SORT_KEYS)


def _writable(entry: Any) -> bool:
    """Whether an entry can be written again: what is read may be nested deeper than what is written."""
    try:
        orjson.dumps(entry)
    except TypeError:
        return False
    return True
