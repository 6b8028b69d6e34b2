"""Answers a chain's model name: its steps in turn, each a recorded call of its own under the chain's interaction."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol

import orjson

from pawl.fleet.chain import INPUT, ChainSpec, StepSpec
from pawl.fleet.spec import FleetSpec
from pawl.gateway.access.limits import retry_after
from pawl.gateway.api.forms import DONE
from pawl.gateway.api.understand import Reader
from pawl.gateway.chain_steps import Said, answer_of, combined, enough, filled, selected, words_of
from pawl.gateway.exchange import Asked
from pawl.gateway.wire import Headers, Refused, Scope, Send, header, send_json
from pawl.lake.records import Interaction
from pawl.qe.task import text_of
from pawl.rollout.control import Key

_BUSY = (429, 503)
ARM = "chain"  # what answered, in the record of the chain itself
_PASSED_ON = (b"x-pawl-session", b"x-pawl-strategy")
_NOT_PASSED_ON = ("messages", "model", "stream", "stream_options", "max_tokens", "max_completion_tokens",
                  "response_format", "tools", "tool_choice", "n")  # fmt: skip


class Promise(Protocol):
    """What an agent promises of its answers."""

    def response_schema(self) -> dict[str, Any] | None:
        """JSON Schema of an answer; None where it is no JSON."""
        ...

    def conforms(self, completion: str) -> bool:
        """Whether an answer has the promised form."""
        ...

    def tests_in(self, completion: str) -> int:
        """How many tests an answer holds; 0 for an agent that writes none."""
        ...

    @property
    def system(self) -> str:
        """The system message of its prompts; empty where there is none."""
        ...


class Step(Protocol):
    """Asks one agent as a client would: (status, answer)."""

    def __call__(
        self, path: str, body: dict[str, Any], key: Key, headers: dict[str, str], *, parent: tuple[str, str]
    ) -> Awaitable[tuple[int, dict[str, Any]]]: ...


class Chains:
    """All chains of the fleet."""

    def __init__(
        self,
        fleet: FleetSpec,
        reader: Reader,
        promises: Mapping[str, Promise],
        ask: Step,
        record: Callable[..., Awaitable[None]],
    ) -> None:
        self._chains = {c.name: c for c in fleet.chains}
        self._tokens = {a.name: a.max_tokens for a in fleet.agents}
        self._reader, self._promises, self._ask, self._record = reader, promises, ask, record

    def named(self, body: Any) -> ChainSpec | None:
        """The chain that a request's model names."""
        name = body.get("model") if isinstance(body, dict) else None
        return self._chains.get(name) if isinstance(name, str) else None

    async def answer(self, chain: ChainSpec, body: dict[str, Any], scope: Scope, key: Key, send: Send) -> None:
        """Run the steps and answer. Refused(502) naming the step where too few of its agents answered."""
        asked = self._reader.chain(
            body, chain.name, [a for s in chain.steps for a in s.agents], scope, key, time.time()
        )
        told = {INPUT: words_of(body["messages"], text_of)}
        headers = {n.decode(): v for n in _PASSED_ON if (v := header(scope, n)) is not None}
        if not asked.user:  # else the steps make their session of it too; not every name fits into a header
            headers.setdefault("x-pawl-session", asked.session)
        headers["x-pawl-privacy"] = asked.privacy  # what one agent may not tell a cloud, the next step may not either
        trail: list[Said] = []
        try:
            for step in chain.steps:
                said = await self._step(step, body, told, asked, key, headers)
                trail += said
                if not enough(step, said):
                    raise _refusal(chain, step, said)
                told[step.name] = combined(step.combine, said).text
                if step.select is not None:
                    members = {s.name: s.combine.member for s in chain.steps if s.combine}
                    told[step.name] = selected(members[step.select], told[step.select], told[step.name])
        except Refused as e:
            await self._keep(asked, "", e.status, e.message)
            raise
        except asyncio.CancelledError:
            await asyncio.shield(self._keep(asked, "", 499, None))
            raise
        text = answer_of(chain, told)
        await self._keep(asked, text, 200, None)
        await _send(asked, text, trail, send)

    async def _step(
        self, step: StepSpec, body: dict[str, Any], told: Mapping[str, str], asked: Asked, key: Key,
        headers: dict[str, str],
    ) -> list[Said]:  # fmt: skip
        prompt = filled(step.prompt, told)
        async with asyncio.TaskGroup() as together:
            running = [
                together.create_task(self._one(step, agent, prompt, body, asked, key, headers)) for agent in step.agents
            ]
        return [task.result() for task in running]

    async def _one(
        self, step: StepSpec, agent: str, prompt: str, body: dict[str, Any], asked: Asked, key: Key,
        headers: dict[str, str],
    ) -> Said:  # fmt: skip
        promise = self._promises.get(agent)
        schema = promise.response_schema() if promise else None
        request = {k: v for k, v in body.items() if k not in _NOT_PASSED_ON} | {
            "model": agent,
            "messages": [*_instructions(promise), {"role": "user", "content": prompt}],
            "max_tokens": step.max_tokens or self._tokens[agent],
        }
        if schema is not None:
            shape = {"name": "answer", "schema": schema}
            request["response_format"] = {"type": "json_schema", "json_schema": shape}
        status, answer = await self._ask("/v1/chat/completions", request, key, headers, parent=(asked.id, step.name))
        if status != 200:
            problem = str((answer.get("error") or {}).get("message") or f"status {status}")
            wait = float(answer.get("retry_after") or 0.0)
            return Said(step=step.name, agent=agent, problem=problem, status=status, retry_after_s=wait)
        choices = answer.get("choices") or [{}]
        text = text_of((choices[0].get("message") or {}).get("content"))
        conforms = promise is None or promise.conforms(text)
        return Said(step=step.name, agent=agent, id=str(answer.get("id", "")), text=text, conforms=conforms)

    async def _keep(self, asked: Asked, text: str, status: int, error: str | None) -> None:
        """Record the chain itself. Its tokens and cost are its steps', so that nothing counts twice."""
        await self._record(
            Interaction(
                id=asked.id,
                at=asked.at,
                agent=asked.agent,
                session=asked.session,
                user=asked.user,
                key_id=asked.key_id,
                arm=ARM,
                arm_kind="local",
                endpoint="chat",
                strategy=asked.strategy,
                privacy=asked.privacy,
                consent=asked.consent,
                messages=asked.body["messages"],
                completion=text,
                finish_reason="stop" if status == 200 else "client_gone" if status == 499 else None,
                status=status,
                error=error,
                broken=status == 499,
                streamed=asked.streamed,
                latency_s=time.time() - asked.at,
                task=asked.task,
            )
        )


def _refusal(chain: ChainSpec, step: StepSpec, said: list[Said]) -> Refused:
    """Why a step has no answer. Where its agents were only busy, or a limit is reached, the client may wait for it."""
    failed = [s for s in said if s.problem]
    why = "; ".join(f"{s.agent}: {s.problem}" for s in failed)
    told = f"step {step.name} of chain {chain.name} has no answer: {why}"
    if all(s.status in _BUSY for s in failed):
        wait = max(s.retry_after_s for s in failed) or 1.0
        kind = "rate_limit_error" if any(s.status == 429 for s in failed) else "server_error"
        return Refused(failed[0].status, told, kind, "step_failed", [(b"retry-after", retry_after(wait))])
    return Refused(502, told, "upstream_error", "step_failed")


def _instructions(promise: Promise | None) -> list[dict[str, Any]]:
    """The agent's own system message, where its task has one."""
    return [{"role": "system", "content": promise.system}] if promise and promise.system else []


async def _send(asked: Asked, text: str, trail: list[Said], send: Send) -> None:
    """The answer in the form that was asked for: whole, or as a stream of one piece."""
    steps = [
        {"step": s.step, "agent": s.agent, "id": s.id, "conforms": s.conforms, "problem": s.problem} for s in trail
    ]
    head = {"id": asked.id, "created": int(asked.at), "model": asked.agent}
    names: Headers = [(b"x-pawl-arm", ARM.encode())]
    if not asked.streamed:
        message = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
        await send_json(send, 200, head | {"object": "chat.completion", "choices": [message], "steps": steps}, names)
        return
    chunks = [
        {"index": 0, "delta": {"role": "assistant", "content": text}, "finish_reason": None},
        {"index": 0, "delta": {}, "finish_reason": "stop"},
    ]
    kind = {"object": "chat.completion.chunk"}
    rows = [head | kind | {"choices": [chunks[0]]}, head | kind | {"choices": [chunks[1]], "steps": steps}]
    data = b"".join(b"data: %b\n\n" % orjson.dumps(row) for row in rows) + DONE
    kinds = [(b"content-type", b"text/event-stream; charset=utf-8"), (b"cache-control", b"no-cache"), *names]
    await send({"type": "http.response.start", "status": 200, "headers": kinds})
    await send({"type": "http.response.body", "body": data})
