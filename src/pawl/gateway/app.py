"""The gateway as a bare ASGI application: who may come in, which path it is, and what lasts while it runs."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from pawl.errors import LakeError
from pawl.gateway.access import auth
from pawl.gateway.access.limits import retry_after
from pawl.gateway.api.forms import ChatForm, EmbeddingsForm, Form, ResponsesForm
from pawl.gateway.api.responses_request import NotTranslatable, to_chat
from pawl.gateway.assembly import Parts
from pawl.gateway.exchange import Asked
from pawl.gateway.wire import Receive, Refused, Scope, Send, read_json, send_bytes, send_json
from pawl.rollout.control import Key

_LISTEN_AFTER_S = 0.02  # most answers are there by then: only longer ones need to know that the client left
log = logging.getLogger("pawl.gateway")
Handler = Callable[[Scope, Receive, Send], Awaitable[None]]


class Gateway:
    """One process in front of all agents."""

    def __init__(self, parts: Parts) -> None:
        self._p = parts
        self._limits = {a.name: a.limits for a in parts.fleet.agents if a.limits.any}
        self._most = parts.fleet.gateway.max_body_bytes
        self._open = 0
        self._tasks: list[asyncio.Task[None]] = []
        self._started = int(time.time())
        self._handlers: dict[tuple[str, str], Handler] = {
            ("POST", "/v1/chat/completions"): self._chat,
            ("POST", "/v1/completions"): self._completions,
            ("POST", "/v1/responses"): self._responses,
            ("POST", "/v1/embeddings"): self._embeddings,
            ("GET", "/v1/models"): self._models,
            ("POST", "/v1/feedback"): self._feedback,
            ("GET", "/v1/rollouts"): self._rollouts,
            ("GET", "/healthz"): self._healthz,
            ("GET", "/readyz"): self._readyz,
            ("GET", "/metrics"): self._serve_metrics,
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
            return
        if scope["type"] != "http":
            return
        begun = False

        async def watched(message: dict[str, Any]) -> None:
            nonlocal begun
            begun = True
            await send(message)

        self._open += 1
        try:
            handler = self._handlers.get((scope["method"], scope["path"]))
            if handler is None:
                raise self._no_such_path(scope)
            if self._open > self._p.fleet.gateway.max_open_requests:
                raise Refused(503, f"{self._open - 1} requests are open already: try again in a moment",
                              "server_error", "overloaded", [(b"retry-after", b"1")])  # fmt: skip
            await handler(scope, receive, watched)
        except Refused as e:
            await send_json(send, e.status, e.body(), e.headers)
        except Exception as e:
            if begun:
                raise  # the server cuts the connection: a client must not take half an answer for a whole one
            if isinstance(e, LakeError):
                refused = Refused(503, str(e), "server_error", "not_recorded")
            else:
                log.exception("%s %s failed", scope["method"], scope["path"])
                refused = Refused(500, "the gateway failed; its log says why", "server_error", "internal_error")
            await send_json(send, refused.status, refused.body())
        finally:
            self._open -= 1

    def _no_such_path(self, scope: Scope) -> Refused:
        methods = [m for m, path in self._handlers if path == scope["path"]]
        if methods:
            allow = ", ".join(methods)
            return Refused(405, f"{scope['path']} takes {allow}", headers=[(b"allow", allow.encode())])
        known = ", ".join(f"{m} {p}" for m, p in self._handlers)
        return Refused(404, f"there is no {scope['method']} {scope['path']}; there are: {known}")

    # -- answers of models

    async def _chat(self, scope: Scope, receive: Receive, send: Send) -> None:
        key = await self._p.door.admit(scope, auth.CLIENTS)
        asked = self._p.reader.chat(await read_json(receive, self._most), scope, key, time.time())
        await self._answer(asked, key, ChatForm(asked), receive, send)

    async def _completions(self, scope: Scope, receive: Receive, send: Send) -> None:
        key = await self._p.door.admit(scope, auth.CLIENTS)
        asked = self._p.reader.completion(await read_json(receive, self._most), scope, key, time.time())
        await self._answer(asked, key, ChatForm(asked), receive, send)

    async def _responses(self, scope: Scope, receive: Receive, send: Send) -> None:
        key = await self._p.door.admit(scope, auth.CLIENTS)
        request = await read_json(receive, self._most)
        if not isinstance(request, dict):
            raise Refused(400, "the body must be a JSON object")
        try:
            body = to_chat(request)
        except NotTranslatable as e:
            raise Refused(400, str(e), code="unsupported_request") from e
        asked = self._p.reader.response(body, scope, key, time.time())
        await self._answer(asked, key, ResponsesForm(asked, request), receive, send)

    async def _embeddings(self, scope: Scope, receive: Receive, send: Send) -> None:
        key = await self._p.door.admit(scope, auth.CLIENTS)
        asked = self._p.reader.embedding(await read_json(receive, self._most), scope, key, time.time())
        await self._answer(asked, key, EmbeddingsForm(asked), receive, send)

    async def _answer(self, asked: Asked, key: Key, form: Form, receive: Receive, send: Send) -> None:
        """Answer, within the limits; where the client leaves, the upstream's work ends too."""
        self._let_in(asked, key)
        route = self._p.routes.get(asked.agent) or self._p.snapshot.routes[asked.agent]
        mine = asyncio.current_task()
        assert mine is not None
        listener: asyncio.Task[None] | None = None
        gone = False

        def listen() -> None:
            nonlocal listener
            listener = asyncio.ensure_future(_disconnected(receive))
            listener.add_done_callback(left)

        def left(task: asyncio.Task[None]) -> None:
            nonlocal gone
            if not task.cancelled():
                gone = True
                mine.cancel()

        timer = asyncio.get_running_loop().call_later(_LISTEN_AFTER_S, listen)
        try:
            await self._p.answering.answer(asked, route, form, send)
        except asyncio.CancelledError:
            if not gone or mine.uncancel() > 0:
                raise
        finally:
            timer.cancel()
            if listener is not None:
                listener.cancel()

    def _let_in(self, asked: Asked, key: Key) -> None:
        """Refused(429) where the key or the agent has used up what it may."""
        meter = self._p.meter
        scopes = [(f"key:{key.id}", key.terms.limits)] if key.terms.limits.any else []
        agents = self._limits.get(asked.agent)
        if agents is not None:
            scopes.append((f"agent:{asked.agent}", agents))
        for scope, limits in scopes:
            spent = meter.exceeded(scope, limits)
            if spent is not None:
                self._p.metrics.refused(spent.what.split(" ", 1)[1])
                raise Refused(
                    429,
                    f"{scope.replace(':', ' ')} has used up its {spent.what}",
                    "rate_limit_error",
                    "insufficient_quota" if "USD" in spent.what else "rate_limit_exceeded",
                    [(b"retry-after", retry_after(spent.retry_after_s))],
                )
        for scope, limits in scopes:
            meter.begin(scope, limits)

    # -- everything else

    async def _models(self, scope: Scope, receive: Receive, send: Send) -> None:
        key = await self._p.door.admit(scope, auth.CLIENTS)
        embeddings = self._p.fleet.gateway.embeddings
        names = [*self._p.reader.may_use(key), *([embeddings.model] if embeddings else [])]
        rows = [{"id": n, "object": "model", "created": self._started, "owned_by": "pawl"} for n in names]
        await send_json(send, 200, {"object": "list", "data": rows})

    async def _feedback(self, scope: Scope, receive: Receive, send: Send) -> None:
        key = await self._p.door.admit(scope, auth.FEEDBACK)
        made = await self._p.desk.read(await read_json(receive, self._most), key)
        await self._p.record(*made)
        rows = [{"id": f.id, "interaction": f.interaction} for f in made]
        await send_json(send, 200, {"object": "list", "data": rows})

    async def _rollouts(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._p.door.admit(scope, auth.OPERATORS)
        snapshot = self._p.snapshot
        rows = [
            {
                "agent": name,
                "route": route,
                "rollout": snapshot.rollouts.get(name),
                "decision": self._p.watchdog.latest.get(name),
            }
            for name, route in snapshot.routes.items()
        ]
        # Specs are pydantic models, everything else is msgspec's.
        body = msgspec.json.encode({"object": "list", "data": rows}, enc_hook=lambda spec: spec.model_dump(mode="json"))
        await send_bytes(send, 200, body, b"application/json")

    async def _healthz(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send_json(send, 200, {"status": "ok"})

    async def _readyz(self, scope: Scope, receive: Receive, send: Send) -> None:
        ended = sorted(t.get_name() for t in self._tasks if t.done())
        if ended or not self._tasks:
            raise Refused(503, f"not ready: {', '.join(ended) or 'starting'}", "server_error", "not_ready")
        await send_json(send, 200, {"status": "ready"})

    async def _serve_metrics(self, scope: Scope, receive: Receive, send: Send) -> None:
        text = self._p.metrics.text(self._p.snapshot.routes, self._p.book, time.monotonic())
        await send_bytes(send, 200, text, b"text/plain; version=0.0.4; charset=utf-8")

    # -- while it runs

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        while True:
            message = await receive()
            if message["type"] == "lifespan.startup":
                await self._p.start()
                self._tasks = [asyncio.create_task(run, name=name) for name, run in self._p.lasting().items()]
                await send({"type": "lifespan.startup.complete"})
            elif message["type"] == "lifespan.shutdown":
                await self._p.drain(10)
                for task in self._tasks:
                    task.cancel()
                await self._p.close()
                await send({"type": "lifespan.shutdown.complete"})
                return


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
