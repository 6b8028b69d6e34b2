"""One call to one arm: its body, what it used and cost, and the interaction that records it (mostly pure)."""

from __future__ import annotations

import random
import time
import uuid
from typing import Any

import msgspec

from pawl.fleet.limits import Privacy
from pawl.fleet.routing import Complexity, Strategy
from pawl.fleet.upstream import UpstreamSpec
from pawl.gateway.routing.complexity import CHARS_A_TOKEN, Features
from pawl.gateway.routing.policy import Choice
from pawl.lake.records import Consent, Feedback, Interaction
from pawl.monitoring.economics import price
from pawl.rollout.route import Arm, Route

# endpoint -> path at an upstream; a Responses request is asked as a chat completion
PATHS = {
    "chat": "/chat/completions",
    "completions": "/completions",
    "responses": "/chat/completions",
    "embeddings": "/embeddings",
}


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """A client's request as the gateway understood it."""

    id: str
    agent: str
    session: str
    key_id: str
    at: float
    body: dict[str, Any]
    user: str = ""
    task: dict[str, Any] = {}
    streamed: bool = False
    endpoint: str = "chat"
    features: Features = Features()
    complexity: Complexity = "simple"
    strategy: Strategy = "privacy_first"
    privacy: Privacy = "open"
    consent: Consent = ""
    max_tokens: int = 0  # of a local model's answer where the client names none; 0: as the model likes
    parent: tuple[str, str] | None = None  # of a chain's step: the chain's interaction and the step's name
    picked: float | None = None  # how sure `auto` was of this agent


class Heard(msgspec.Struct, kw_only=True):
    """What came back from an arm, filled in as it comes."""

    text: str = ""
    tool_calls: list[dict[str, Any]] = []
    finish_reason: str | None = None
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    status: int = 200
    error: str | None = None
    broken: bool = False
    first_token_s: float | None = None
    attempts: int = 1

    def whole(self, body: dict[str, Any]) -> None:
        """Take a whole answer in."""
        choices = body.get("choices")
        if choices:
            choice = choices[0]
            message = choice.get("message")
            if isinstance(message, dict):
                self.text = _text(message.get("content"))
                calls = message.get("tool_calls")
                if isinstance(calls, list):
                    self.tool_calls = [c for c in calls if isinstance(c, dict)]
            else:
                self.text = _text(choice.get("text"))
            self.finish_reason = _reason(choice.get("finish_reason"))
        self._usage(body.get("usage"))

    def chunk(self, chunk: dict[str, Any], since: float) -> None:
        """Take one chunk of a stream in."""
        for choice in chunk.get("choices") or ():
            if choice.get("index", 0) != 0:
                continue
            delta = choice.get("delta") or {}
            part = _text(delta.get("content")) or _text(choice.get("text"))
            calls = delta.get("tool_calls")
            if calls:
                self._grow_calls(calls)
            if part:
                self.text += part
            if (part or calls) and self.first_token_s is None:
                self.first_token_s = time.time() - since
            self.finish_reason = _reason(choice.get("finish_reason")) or self.finish_reason
        self._usage(chunk.get("usage"))

    def _grow_calls(self, deltas: Any) -> None:
        """Tool calls come in pieces: the name first, then the arguments bit by bit, by index."""
        for delta in deltas if isinstance(deltas, list) else ():
            if not isinstance(delta, dict):
                continue
            index = delta.get("index", 0)
            if not isinstance(index, int) or not 0 <= index < 128:
                continue
            while len(self.tool_calls) <= index:
                self.tool_calls.append({"id": "", "type": "function", "function": {"name": "", "arguments": ""}})
            call = self.tool_calls[index]
            call["id"] = delta.get("id") or call["id"]
            function = delta.get("function")
            if isinstance(function, dict):
                call["function"]["name"] += _text(function.get("name"))
                call["function"]["arguments"] += _text(function.get("arguments"))

    def _usage(self, usage: Any) -> None:
        if isinstance(usage, dict):
            self.prompt_tokens = _tokens(usage.get("prompt_tokens"))
            self.completion_tokens = _tokens(usage.get("completion_tokens"))
            details = usage.get("prompt_tokens_details")
            if isinstance(details, dict):
                self.cached_tokens = min(_tokens(details.get("cached_tokens")), self.prompt_tokens)


def new_id(endpoint: str = "chat") -> str:
    """An interaction's id, in the shape that the endpoint's clients know."""
    # Unique, not secret: what may be done with an id is up to the key.
    return ("resp_%032x" if endpoint == "responses" else "chatcmpl-%032x") % random.getrandbits(128)


def _text(content: Any) -> str:
    return content if isinstance(content, str) else ""


def _reason(said: Any) -> str | None:
    return said if isinstance(said, str) else None


def _tokens(said: Any) -> int:
    """A count as an upstream states it; what is no count is none."""
    return said if type(said) is int and said >= 0 else 0  # True is no count


def body_for(arm: Arm, asked: Asked, *, stream: bool) -> dict[str, Any]:
    """The request for an arm: the client's own, with the arm's model; fields we do not know pass through."""
    body = dict(asked.body)
    body.pop("metadata", None)  # told to the gateway, not to an upstream
    body["model"] = arm.model
    if asked.endpoint == "embeddings":
        return body
    if asked.max_tokens and arm.kind == "local" and not (body.get("max_tokens") or body.get("max_completion_tokens")):
        body["max_tokens"] = asked.max_tokens
    body["stream"] = stream
    if stream:
        body["stream_options"] = {**(body.get("stream_options") or {}), "include_usage": True}
    else:
        body.pop("stream_options", None)
    return body


def graded(call: Interaction, score: float) -> Feedback:
    """What the platform's own check said of an answer that no client may have seen."""
    return Feedback(
        id=uuid.uuid4().hex,
        at=time.time(),
        interaction=call.id,
        agent=call.agent,
        kind="outcome",
        score=score,
        source="grader",
    )


def interaction(
    asked: Asked,
    heard: Heard,
    choice: Choice,
    route: Route,
    upstream: UpstreamSpec,
    *,
    identity: str,
    started: float,
    role: str = "answer",
) -> Interaction:
    """The record of one call."""
    arm = choice.arm
    prompt_tokens, completion_tokens = heard.prompt_tokens, heard.completion_tokens
    if heard.text and not completion_tokens:
        # Who leaves before the last chunk, or an upstream that states no usage, is not free: an estimate counts.
        prompt_tokens = prompt_tokens or asked.features.prompt_tokens
        completion_tokens = max(1, len(heard.text) // CHARS_A_TOKEN)
    return Interaction(
        id=identity,
        at=started,
        agent=asked.agent,
        session=asked.session,
        user=asked.user,
        key_id=asked.key_id,
        arm=arm.name,
        arm_kind=arm.kind,
        role=role,  # type: ignore[arg-type]
        endpoint=asked.endpoint,
        shadow_of=asked.id if role != "answer" else None,
        parent=asked.parent[0] if asked.parent else None,
        step=asked.parent[1] if asked.parent else "",
        picked=asked.picked,
        rollout=route.rollout,
        stage=route.stage,
        route_revision=route.revision,
        reason=choice.reason,
        fallback=choice.fallback,
        attempts=heard.attempts,
        strategy=asked.strategy,
        complexity=asked.complexity,
        privacy=asked.privacy,
        consent=asked.consent,
        messages=said(asked),
        completion=heard.text,
        tool_calls=heard.tool_calls,
        finish_reason=heard.finish_reason,
        status=heard.status,
        error=heard.error,
        streamed=asked.streamed and role != "shadow",
        broken=heard.broken,
        prompt_tokens=prompt_tokens,
        cached_tokens=heard.cached_tokens,
        completion_tokens=completion_tokens,
        cost_usd=price(upstream, prompt_tokens, completion_tokens, heard.cached_tokens),
        latency_s=time.time() - started,
        first_token_s=heard.first_token_s,
        task=asked.task,
    )


def said(asked: Asked) -> list[dict[str, Any]]:
    """What was asked, as messages: a prompt or an input to embed becomes one message of the user."""
    if asked.endpoint in ("chat", "responses"):
        messages: list[dict[str, Any]] = asked.body.get("messages", [])
        return messages
    content = asked.body.get("prompt", asked.body.get("input", ""))
    return [{"role": "user", "content": content}]
