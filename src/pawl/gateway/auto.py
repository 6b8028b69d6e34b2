"""The model name `auto`: a classifier picks the agent, and one that takes anything is asked where it is unsure."""

from __future__ import annotations

import asyncio
import logging
from typing import Any, NamedTuple, Protocol

from pawl.fleet.chain import AutoSpec
from pawl.gateway.api.understand import Reader
from pawl.gateway.wire import Refused, Scope
from pawl.qe.task import text_of
from pawl.rollout.control import Key

log = logging.getLogger("pawl.gateway")
LONGEST = 8_000  # characters of a request that the classifier reads: what it is about stands at its beginning


class Picked(NamedTuple):
    """The classifier's word."""

    agent: str
    confidence: float


class Picker(Protocol):
    """Which agent a text is for. Raises whatever it likes where it cannot tell."""

    def pick(self, text: str) -> Picked: ...


class Auto:
    """Gives requests to `auto` the model name of an agent."""

    def __init__(self, spec: AutoSpec, reader: Reader, picker: Picker | None) -> None:
        self._spec, self._reader, self._picker = spec, reader, picker

    def named(self, body: Any) -> bool:
        """Whether a request leaves the choice to us."""
        return isinstance(body, dict) and body.get("model") == self._spec.name

    async def addressed(self, body: dict[str, Any], scope: Scope, key: Key) -> tuple[dict[str, Any], Scope]:
        """The request with an agent's name, and with how sure the choice was for its record."""
        text = words(body)[:LONGEST]
        if not text.strip():
            raise Refused(400, f"{self._spec.name} picks the agent by the request's text; there is none")
        found: Picked | None = None
        if self._picker is not None:
            try:
                # A model of this size takes a millisecond or so, and its first use more: not on the event loop.
                found = await asyncio.to_thread(self._picker.pick, text)
            except Exception:  # no choice is worth no answer
                log.exception("the classifier of %s failed; %s is asked", self._spec.name, self._spec.unsure)
        agent = chosen(found, self._spec, self._reader.may_use(key))
        return body | {"model": agent}, scope | {"pawl.picked": found.confidence if found else 0.0}


def chosen(found: Picked | None, spec: AutoSpec, may_use: list[str]) -> str:
    """The agent to ask: the picked one where it is sure enough and the key may use it (pure)."""
    # Written so that a confidence that is no number is not enough.
    if found is None or not found.confidence >= spec.min_confidence or found.agent not in may_use:
        return spec.unsure
    return found.agent


def words(body: dict[str, Any]) -> str:
    """All that system and user said, in any of the families' forms."""
    messages = body.get("messages")
    if isinstance(messages, list):
        return "\n".join(text_of(m.get("content")) for m in messages if isinstance(m, dict))
    told = body.get("input", body.get("prompt", ""))
    if isinstance(told, list):
        told = "\n".join(
            t if isinstance(t, str) else text_of(t.get("content")) for t in told if isinstance(t, str | dict)
        )
    parts = (body.get("instructions"), told)  # the Responses API's word for a system message stands apart
    return "\n".join(p for p in parts if isinstance(p, str) and p)
