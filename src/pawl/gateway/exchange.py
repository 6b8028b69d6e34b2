"""One call to one arm: its body, what it used and cost, and the interaction that records it (mostly pure)."""

from __future__ import annotations

import time
from typing import Any

import msgspec

from pawl.fleet.spec import UpstreamSpec
from pawl.lake.records import Interaction
from pawl.monitoring.economics import price
from pawl.rollout.route import Arm, Route

_OURS = ("metadata",)  # told to the gateway, not to an upstream


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """A client's request as the gateway understood it."""

    id: str
    agent: str
    session: str
    key_id: str
    at: float
    body: dict[str, Any]
    task: dict[str, Any]
    streamed: bool


class Heard(msgspec.Struct, kw_only=True):
    """What came back from an arm, filled in as it comes."""

    text: str = ""
    finish_reason: str | None = None
    prompt_tokens: int = 0
    completion_tokens: int = 0
    status: int = 200
    error: str | None = None
    broken: bool = False
    first_token_s: float | None = None

    def whole(self, body: dict[str, Any]) -> None:
        """Take a whole answer in."""
        choice = body["choices"][0]
        self.text = _text(choice["message"].get("content"))
        self.finish_reason = choice.get("finish_reason")
        self._usage(body.get("usage"))

    def chunk(self, chunk: dict[str, Any], since: float) -> None:
        """Take one chunk of a stream in."""
        for choice in chunk.get("choices") or ():
            if choice.get("index", 0) != 0:
                continue
            part = _text((choice.get("delta") or {}).get("content"))
            if part:
                self.text += part
                if self.first_token_s is None:
                    self.first_token_s = time.time() - since
            self.finish_reason = choice.get("finish_reason") or self.finish_reason
        self._usage(chunk.get("usage"))

    def _usage(self, usage: Any) -> None:
        if isinstance(usage, dict):
            self.prompt_tokens = _tokens(usage.get("prompt_tokens"))
            self.completion_tokens = _tokens(usage.get("completion_tokens"))


def _text(content: Any) -> str:
    return content if isinstance(content, str) else ""


def _tokens(said: Any) -> int:
    """A count as an upstream states it; what is no count is none."""
    return said if isinstance(said, int) and said >= 0 else 0


def body_for(arm: Arm, asked: Asked, *, stream: bool) -> dict[str, Any]:
    """The request for an arm: the client's own, with the arm's model; fields we do not know pass through."""
    body = {k: v for k, v in asked.body.items() if k not in _OURS}
    body["model"] = arm.model
    body["stream"] = stream
    if stream:
        body["stream_options"] = {**(body.get("stream_options") or {}), "include_usage": True}
    else:
        body.pop("stream_options", None)
    return body


def interaction(
    asked: Asked,
    heard: Heard,
    arm: Arm,
    route: Route,
    upstream: UpstreamSpec,
    *,
    identity: str,
    started: float,
    reason: str,
    shadow: bool = False,
) -> Interaction:
    """The record of one call."""
    return Interaction(
        id=identity,
        at=started,
        agent=asked.agent,
        session=asked.session,
        key_id=asked.key_id,
        arm=arm.name,
        arm_kind=arm.kind,
        role="shadow" if shadow else "answer",
        shadow_of=asked.id if shadow else None,
        rollout=route.rollout,
        stage=route.stage,
        route_revision=route.revision,
        reason=reason,
        messages=asked.body["messages"],
        completion=heard.text,
        finish_reason=heard.finish_reason,
        status=heard.status,
        error=heard.error,
        streamed=asked.streamed and not shadow,
        broken=heard.broken,
        prompt_tokens=heard.prompt_tokens,
        completion_tokens=heard.completion_tokens,
        cost_usd=price(upstream, heard.prompt_tokens, heard.completion_tokens),
        latency_s=time.time() - started,
        first_token_s=heard.first_token_s,
        task=asked.task,
    )


def plan(route: Route, chosen: Arm, fleet_upstreams: dict[str, UpstreamSpec]) -> list[tuple[Arm, str]]:
    """The arms to try in order, with the reason for each (pure).

    A challenger that fails costs no client an answer: the champion stands behind it. Behind a local champion stands
    the agent's own cloud upstream, where it has one.
    """
    is_challenger = route.challenger is not None and chosen.name == route.challenger.name
    order = [(chosen, f"challenger at {route.percent} %" if is_challenger else "champion")]
    if is_challenger:
        order.append((route.champion, "fallback: the challenger failed"))
    if order[-1][0].kind == "local":
        cloud = next((a for a in route.shadows if a.kind == "cloud" and a.upstream in fleet_upstreams), None)
        if cloud is not None:
            order.append((cloud, "fallback: the serving cluster failed"))
    return order
