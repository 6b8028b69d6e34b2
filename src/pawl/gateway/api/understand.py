"""What a client asks: the body and headers of one request, checked and named (pure)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, get_args

import msgspec

from pawl.fleet.limits import Privacy
from pawl.fleet.routing import Strategy
from pawl.fleet.spec import AgentSpec, FleetSpec
from pawl.gateway.access.consent import consent
from pawl.gateway.access.privacy import MODES, narrowest
from pawl.gateway.exchange import Asked, new_id
from pawl.gateway.routing.complexity import complexity, features
from pawl.gateway.wire import Refused, Scope, header
from pawl.rollout.control import Key

EMBEDDINGS = "embeddings"  # what interactions of /v1/embeddings are recorded under
_STRATEGIES = get_args(Strategy)


class Reader:
    """Reads requests for one fleet."""

    def __init__(self, fleet: FleetSpec) -> None:
        self._fleet = fleet
        self._agents: Mapping[str, AgentSpec] = {a.name: a for a in fleet.agents}

    def chat(self, body: Any, scope: Scope, key: Key, at: float) -> Asked:
        """A chat completion."""
        body = _object(body)
        agent = self._agent(body, key)
        messages = body.get("messages")
        if not isinstance(messages, list) or not messages or not all(isinstance(m, dict) for m in messages):
            raise Refused(400, "`messages` must be a list of at least one message")
        return self._asked("chat", body, agent, scope, key, at)

    def chain(self, body: dict[str, Any], name: str, agents: Sequence[str], scope: Scope, key: Key, at: float) -> Asked:
        """A chat completion by a chain of agents; as private as the most private of them."""
        messages = body.get("messages")
        if not isinstance(messages, list) or not messages or not all(isinstance(m, dict) for m in messages):
            raise Refused(400, "`messages` must be a list of at least one message")
        barred = [a for a in agents if key.terms.agents and a not in key.terms.agents]
        if barred:
            raise _not_this_agent(barred[0])
        asked = self._asked("chat", body, self._agents[agents[0]], scope, key, at)
        modes = [self._agents[a].privacy for a in agents]
        return msgspec.structs.replace(asked, agent=name, privacy=narrowest((asked.privacy, *modes)))

    def completion(self, body: Any, scope: Scope, key: Key, at: float) -> Asked:
        """A text completion."""
        body = _object(body)
        agent = self._agent(body, key)
        prompt = body.get("prompt")
        if not isinstance(prompt, str | list) or not prompt:
            raise Refused(400, "`prompt` must be a text or a list of them")
        return self._asked("completions", body, agent, scope, key, at)

    def response(self, body: dict[str, Any], scope: Scope, key: Key, at: float, sent: dict[str, Any]) -> Asked:
        """A request of the Responses API, translated to a chat completion already. `sent`: as the client wrote it."""
        asked = self._asked("responses", body, self._agent(body, key), scope, key, at)
        # Chat has no word for its `store`: only the client's own body says it.
        return msgspec.structs.replace(asked, consent=consent(sent, key.terms))

    def embedding(self, body: Any, scope: Scope, key: Key, at: float) -> Asked:
        """Texts to embed."""
        body = _object(body)
        spec = self._fleet.gateway.embeddings
        if spec is None:
            raise Refused(404, "this gateway serves no embeddings: set gateway.embeddings in fleet.yaml")
        if body.get("model") != spec.model:
            raise Refused(404, f"`model` must be {spec.model!r} here", code="model_not_found")
        if not isinstance(body.get("input"), str | list) or not body["input"]:
            raise Refused(400, "`input` must be a text or a list of them")
        if key.terms.agents and EMBEDDINGS not in key.terms.agents:
            raise _not_this_agent(EMBEDDINGS)
        return Asked(
            id=new_id(),
            agent=EMBEDDINGS,
            session=header(scope, b"x-pawl-session") or _user(body),
            user=_user(body),
            key_id=key.id,
            at=at,
            body=body,
            task=_task(body),
            endpoint="embeddings",
            # At least local: no agent's own privacy covers these texts.
            privacy=narrowest(("local_only", self._fleet.gateway.privacy, key.terms.privacy, _privacy(scope))),
            consent=consent(body, key.terms),
        )

    @property
    def names(self) -> list[str]:
        """All agents."""
        return list(self._agents)

    def may_use(self, key: Key) -> list[str]:
        """The agents that a key may call."""
        return [name for name in self._agents if not key.terms.agents or name in key.terms.agents]

    def more(self, key: Key) -> list[str]:
        """The other model names that a key may call: chains of agents that it may, and `auto`."""
        may = set(self.may_use(key))
        names = [c.name for c in self._fleet.chains if may.issuperset(a for s in c.steps for a in s.agents)]
        return [*names, *([self._fleet.auto.name] if self._fleet.auto else [])]

    def _agent(self, body: dict[str, Any], key: Key) -> AgentSpec:
        name = body.get("model")
        agent = self._agents.get(name) if isinstance(name, str) else None
        if agent is None:
            known = ", ".join([*self.may_use(key), *self.more(key)])
            raise Refused(404, f"no agent is called {name!r}; `model` must be one of: {known}", code="model_not_found")
        if key.terms.agents and agent.name not in key.terms.agents:
            raise _not_this_agent(agent.name)
        return agent

    def _asked(self, endpoint: str, body: dict[str, Any], agent: AgentSpec, scope: Scope, key: Key, at: float) -> Asked:
        if not isinstance(body.get("stream_options") or {}, dict):
            raise Refused(400, "`stream_options` must be an object")
        if not isinstance(body.get("stream") or False, bool):
            raise Refused(400, "`stream` must be true or false")
        identity = new_id(endpoint)
        looks = features(body)
        level, _ = complexity(looks, agent.routing.base_complexity)
        return Asked(
            id=identity,
            agent=agent.name,
            session=header(scope, b"x-pawl-session") or _user(body) or identity,
            user=_user(body),
            key_id=key.id,
            at=at,
            body=body,
            task=_task(body),
            streamed=bool(body.get("stream")),
            endpoint=endpoint,
            features=looks,
            complexity=level,
            strategy=_strategy(scope) or agent.routing.strategy,
            privacy=narrowest((self._fleet.gateway.privacy, agent.privacy, key.terms.privacy, _privacy(scope))),
            consent=consent(body, key.terms),
            # A small model that does not know its end goes on to its context's. Clouds count their own thinking in.
            max_tokens=agent.max_tokens if "max_tokens" in agent.model_fields_set else 0,
            parent=scope.get("pawl.parent"),
            picked=scope.get("pawl.picked"),
        )


def _user(body: dict[str, Any]) -> str:
    user = body.get("user")
    return user if isinstance(user, str) else ""


def _task(body: dict[str, Any]) -> dict[str, Any]:
    metadata = body.get("metadata")
    return metadata if isinstance(metadata, dict) else {}


def _object(body: Any) -> dict[str, Any]:
    if not isinstance(body, dict):
        raise Refused(400, "the body must be a JSON object")
    return body


def hints(scope: Scope) -> dict[str, str]:
    """The headers that narrow or steer a request, checked. Refused(400) where one says nothing known."""
    _privacy(scope), _strategy(scope)
    named = ("x-pawl-privacy", "x-pawl-strategy", "x-pawl-session")
    return {name: value for name in named if (value := header(scope, name.encode())) is not None}


def _privacy(scope: Scope) -> Privacy | None:
    named = header(scope, b"x-pawl-privacy")
    if named is not None and named not in MODES:
        raise Refused(400, f"x-pawl-privacy must be one of {', '.join(MODES)}, not {named!r}")
    return named


def _strategy(scope: Scope) -> Strategy | None:
    named = header(scope, b"x-pawl-strategy")
    if named is not None and named not in _STRATEGIES:
        raise Refused(400, f"x-pawl-strategy must be one of {', '.join(_STRATEGIES)}, not {named!r}")
    return named  # type: ignore[return-value]


def _not_this_agent(name: str) -> Refused:
    return Refused(403, f"this key may not use {name}", "permission_error", "insufficient_permissions")
