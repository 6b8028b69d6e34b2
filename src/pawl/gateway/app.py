"""The gateway as a bare ASGI application: who may come in, which path it is, and what lasts while it runs."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine
from typing import Any

import msgspec
import orjson

from pawl.errors import ControlUnavailable, LakeError
from pawl.gateway.access import auth
from pawl.gateway.access.limits import retry_after
from pawl.gateway.api.batch_paths import BatchPaths, Handler
from pawl.gateway.api.batches import ENDPOINTS, Batches
from pawl.gateway.api.control import ControlDesk
from pawl.gateway.api.files import Files
from pawl.gateway.api.forms import ChatForm, EmbeddingsForm, Form, ResponsesForm
from pawl.gateway.api.openapi import document
from pawl.gateway.api.responses_request import NotTranslatable, to_chat
from pawl.gateway.assembly import Parts
from pawl.gateway.auto import Auto
from pawl.gateway.chains import Chains
from pawl.gateway.deadlines import Deadlines
from pawl.gateway.exchange import Asked
from pawl.gateway.wire import Hearing, Receive, Refused, Scope, Send, read_json, send_bytes, send_json, send_refusal
from pawl.rollout.control import Key

_LISTEN_AFTER_S = 0.02  # most answers are there by then: only longer ones need to know that the client left
log = logging.getLogger("pawl.gateway")


class Gateway:
    """One process in front of all agents."""

    def __init__(self, parts: Parts) -> None:
        self._p = parts
        parts.metrics.know(parts.fleet)
        self._limits = {a.name: a.limits for a in parts.fleet.agents if a.limits.any}
        self._most = parts.fleet.gateway.max_body_bytes
        self._open = 0
        self._soon: Deadlines  # made with the loop, before the first request
        self._tasks: list[asyncio.Task[None]] = []
        self._also: dict[str, Callable[[], Coroutine[Any, Any, None]]] = {}
        self._started = int(time.time())
        files = Files(parts.home / "batches" / "files")
        self._batches = Batches(parts.home / "batches", files, parts.control, self.ask)
        self._chains = Chains(parts.fleet, parts.reader, parts.promises, self.ask, parts.record)
        self._auto = Auto(parts.fleet.auto, parts.reader, parts.picker) if parts.fleet.auto else None
        paths = BatchPaths(files, self._batches, parts.door, self._most)
        self._also["batches"] = self._batches.work
        self._handlers: dict[tuple[str, str], Handler] = {
            **{("POST", path): self._model_answer for path in ENDPOINTS},
            ("GET", "/v1/models"): self._models,
            ("POST", "/v1/feedback"): self._feedback,
            ("GET", "/v1/rollouts"): self._rollouts,
            ("POST", "/control/mlflow"): ControlDesk(parts.control, parts.events).mlflow,
            ("GET", "/healthz"): self._healthz,
            ("GET", "/readyz"): self._readyz,
            ("GET", "/metrics"): self._serve_metrics,
            ("GET", "/openapi.json"): self._openapi,
            **paths.handlers(),
        }

    def also(self, name: str, lasting: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Something more that must run as long as the gateway does; called before it starts."""
        self._also[name] = lasting

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
            return
        if scope["type"] != "http":
            return
        handler, name = self._find(scope["method"], scope["path"])
        await self._guarded(handler, name, scope, Hearing(receive), send)

    async def _guarded(self, handler: Handler | None, name: str, scope: Scope, heard: Hearing, send: Send) -> None:
        """Run a handler; whatever goes wrong becomes an error in OpenAI's shape."""
        begun = False

        async def watched(message: dict[str, Any]) -> None:
            nonlocal begun
            begun = True
            await send(message)

        self._open += 1
        try:
            if handler is None:
                raise self._no_such_path(scope)
            if self._open > self._p.fleet.gateway.max_open_requests:
                self._p.metrics.refused("open requests")
                raise Refused(503, f"{self._open - 1} requests are open already: try again in a moment",
                              "server_error", "overloaded", [(b"retry-after", b"1")])  # fmt: skip
            await handler(scope, heard, watched, name)
            return
        except Refused as e:
            if e.code in ("invalid_api_key", "insufficient_permissions"):
                self._p.metrics.turned_away(e.status)
            if e.code == "control_database_unavailable":
                self._p.metrics.refused("control database")
            refused = e
        except Exception as e:
            if begun:
                raise  # the server cuts the connection: a client must not take half an answer for a whole one
            if isinstance(e, ControlUnavailable):
                self._p.metrics.refused("control database")
            if isinstance(e, LakeError | ControlUnavailable):
                refused = Refused(503, str(e), "server_error", "not_recorded")
            else:
                log.exception("%s %s failed", scope["method"], scope["path"])
                refused = Refused(500, "the gateway failed; its log says why", "server_error", "internal_error")
        finally:
            self._open -= 1
        await send_refusal(send, refused, heard)

    def _find(self, method: str, path: str) -> tuple[Handler | None, str]:
        """The handler of a path and what stands for its `{id}`."""
        found = self._handlers.get((method, path))
        if found is not None:
            return found, ""
        parts = path.split("/")
        if len(parts) > 3:
            name, parts[3] = parts[3], "{id}"
            return self._handlers.get((method, "/".join(parts))), name
        return None, ""

    def _no_such_path(self, scope: Scope) -> Refused:
        methods = [m for m in ("GET", "POST", "DELETE") if self._find(m, scope["path"])[0]]
        if methods:
            allow = ", ".join(methods)
            return Refused(405, f"{scope['path']} takes {allow}", headers=[(b"allow", allow.encode())])
        known = ", ".join(f"{m} {p}" for m, p in self._handlers)
        return Refused(404, f"there is no {scope['method']} {scope['path']}; there are: {known}")

    # -- answers of models

    async def _model_answer(self, scope: Scope, receive: Receive, send: Send, _: str) -> None:
        key = await self._p.door.admit(scope, auth.CLIENTS)
        await self._for_key(scope, await read_json(receive, self._most), key, receive, send)

    async def _for_key(self, scope: Scope, body: Any, key: Key, receive: Receive, send: Send) -> None:
        """One request of a family, by its path."""
        reader, now = self._p.reader, time.time()
        if self._auto is not None and self._auto.named(body):
            body, scope = await self._auto.addressed(body, scope, key)
        chain = self._chains.named(body)
        if chain is not None and scope["path"] != "/v1/chat/completions":
            raise Refused(400, f"{chain.name} is a chain: ask it at /v1/chat/completions")
        form: Form
        match scope["path"]:
            case "/v1/chat/completions" if chain is not None:
                await self._while_heard(self._chains.answer(chain, body, scope, key, send), receive)
                return
            case "/v1/chat/completions":
                asked = reader.chat(body, scope, key, now)
                form = ChatForm(asked)
            case "/v1/completions":
                asked = reader.completion(body, scope, key, now)
                form = ChatForm(asked)
            case "/v1/responses":
                asked = reader.response(_translated(body), scope, key, now, sent=body)
                form = ResponsesForm(asked, body)
            case _:
                asked = reader.embedding(body, scope, key, now)
                form = EmbeddingsForm(asked)
        await self._answer(asked, key, form, receive, send)

    async def ask(
        self,
        path: str,
        body: dict[str, Any],
        key: Key,
        headers: dict[str, str],
        parent: tuple[str, str] | None = None,
    ) -> tuple[int, dict[str, Any]]:
        """One line of a batch, or a step of a chain (`parent`: the chain's interaction and the step's name).

        As its client would ask; (status, answer), `retry_after` in it where that was said.
        """
        self._p.door.terms[key.id] = key.terms
        sent = [(name.encode(), value.encode("latin-1", "replace")) for name, value in headers.items()]
        scope = {"type": "http", "method": "POST", "path": path, "headers": sent, "pawl.parent": parent}
        said: list[dict[str, Any]] = []

        async def nothing() -> dict[str, Any]:
            return await asyncio.get_running_loop().create_future()  # type: ignore[no-any-return]

        async def keep(message: dict[str, Any]) -> None:
            said.append(message)

        async def handle(scope: Scope, receive: Receive, send: Send, _: str) -> None:
            await self._for_key(scope, body, key, receive, send)

        await self._guarded(handle, "", scope, Hearing(nothing, over=True), keep)
        answer: dict[str, Any] = orjson.loads(b"".join(m.get("body", b"") for m in said[1:]))
        wait = next((value for name, value in said[0]["headers"] if name == b"retry-after"), None)
        return said[0]["status"], answer | ({"retry_after": float(wait)} if wait else {})

    async def _answer(self, asked: Asked, key: Key, form: Form, receive: Receive, send: Send) -> None:
        """Answer, within the limits."""
        self._let_in(asked, key)
        route = self._p.routes.get(asked.agent) or self._p.snapshot.routes[asked.agent]
        await self._while_heard(self._p.answering.answer(asked, route, form, send), receive)

    async def _while_heard(self, work: Coroutine[Any, Any, None], receive: Receive) -> None:
        """Do the work; where the client leaves, it ends, and the upstreams' with it."""
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

        self._soon.start(mine, listen)
        try:
            await work
        except asyncio.CancelledError:
            if not gone or mine.uncancel() > 0:
                raise
        finally:
            self._soon.stop(mine)
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

    async def _models(self, scope: Scope, receive: Receive, send: Send, _: str) -> None:
        key = await self._p.door.admit(scope, auth.CLIENTS)
        embeddings = self._p.fleet.gateway.embeddings
        names = [*self._p.reader.may_use(key), *self._p.reader.more(key), *([embeddings.model] if embeddings else [])]
        rows = [{"id": n, "object": "model", "created": self._started, "owned_by": "pawl"} for n in names]
        await send_json(send, 200, {"object": "list", "data": rows})

    async def _feedback(self, scope: Scope, receive: Receive, send: Send, _: str) -> None:
        key = await self._p.door.admit(scope, auth.FEEDBACK)
        made = await self._p.desk.read(await read_json(receive, self._most), key)
        await self._p.record(*made)
        rows = [{"id": f.id, "interaction": f.interaction} for f in made]
        await send_json(send, 200, {"object": "list", "data": rows})

    async def _rollouts(self, scope: Scope, receive: Receive, send: Send, _: str) -> None:
        await self._p.door.admit(scope, auth.OPERATORS)
        snapshot = self._p.snapshot
        rows = [
            {
                "agent": name,
                "route": route,
                "rollout": snapshot.rollouts.get(name),
                "decision": self._p.watchdog.latest.get(name),
                "alarm": self._p.watchdog.alarms.get(name, ""),
            }
            for name, route in snapshot.routes.items()
        ]
        # Specs are pydantic models, everything else is msgspec's.
        body = msgspec.json.encode({"object": "list", "data": rows}, enc_hook=lambda spec: spec.model_dump(mode="json"))
        await send_bytes(send, 200, body, b"application/json")

    async def _healthz(self, scope: Scope, receive: Receive, send: Send, _: str) -> None:
        await send_json(send, 200, {"status": "ok"})

    async def _readyz(self, scope: Scope, receive: Receive, send: Send, _: str) -> None:
        ended = sorted(t.get_name() for t in self._tasks if t.done())
        if ended or not self._tasks:
            raise Refused(503, f"not ready: {', '.join(ended) or 'starting'}", "server_error", "not_ready")
        cluster = self._p.cluster.summary() if self._p.cluster else {}
        await send_json(send, 200, {"status": "ready", **cluster})

    async def _serve_metrics(self, scope: Scope, receive: Receive, send: Send, _: str) -> None:
        await send_bytes(send, 200, self._p.exposition(), b"text/plain; version=0.0.4; charset=utf-8")

    async def _openapi(self, scope: Scope, receive: Receive, send: Send, _: str) -> None:
        await send_json(send, 200, document(self._p.reader.names))

    # -- while it runs

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        while True:
            message = await receive()
            if message["type"] == "lifespan.startup":
                self._soon = Deadlines(asyncio.get_running_loop(), _LISTEN_AFTER_S)
                await self._p.start()
                lasting = self._p.lasting() | {name: begin() for name, begin in self._also.items()}
                self._tasks = [asyncio.create_task(run, name=name) for name, run in lasting.items()]
                await send({"type": "lifespan.startup.complete"})
            elif message["type"] == "lifespan.shutdown":
                await self._p.drain(10)
                for task in self._tasks:
                    task.cancel()
                await self._p.close()
                await send({"type": "lifespan.shutdown.complete"})
                return


def _translated(request: Any) -> dict[str, Any]:
    """A Responses request as a chat completion. Refused(400) where chat has no word for it."""
    if not isinstance(request, dict):
        raise Refused(400, "the body must be a JSON object")
    try:
        return to_chat(request)
    except NotTranslatable as e:
        raise Refused(400, str(e), code="unsupported_request") from e


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
