"""The gateway as a bare ASGI application: paths, the request's way through, and its record."""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from pawl.errors import LakeError
from pawl.fleet.spec import AgentSpec, FleetSpec
from pawl.gateway import auth
from pawl.gateway.auth import Doorkeeper
from pawl.gateway.exchange import Asked, Heard, body_for, interaction, plan
from pawl.gateway.feedback import read_feedback
from pawl.gateway.metrics import Metrics
from pawl.gateway.recorder import Recorder
from pawl.gateway.shadows import Grader, Shadows
from pawl.gateway.snapshot import Snapshot
from pawl.gateway.streaming import Stream
from pawl.gateway.upstream_client import UpstreamClient, UpstreamFailed
from pawl.gateway.watchdog import Watchdog
from pawl.gateway.wire import Receive, Refused, Scope, Send, header, read_json, send_bytes, send_json
from pawl.lake.journal import Journal
from pawl.lake.parquet_lake import ParquetLake
from pawl.lake.records import Interaction, Record
from pawl.rollout.control import ControlStore, Key
from pawl.rollout.route import Arm, Route, choose

_REMEMBER = 200_000  # ids of interactions that feedback may be about without a look into the lake

_TIDY_S = 5.0
log = logging.getLogger("pawl.gateway")


class Gateway:
    """One process in front of all agents."""

    def __init__(
        self,
        fleet: FleetSpec,
        control: ControlStore,
        lake: ParquetLake,
        journal: Journal,
        graders: Mapping[str, Grader],
        places: dict[str, str],
        first_route: Callable[[AgentSpec], Route],
        *,
        wait_for_disk: bool = False,
    ) -> None:
        self._fleet, self._lake, self._journal = fleet, lake, journal
        self._door = Doorkeeper(control)
        self._recorder = Recorder(journal, wait_for_disk=wait_for_disk)
        self._metrics = Metrics()
        self._client = UpstreamClient(fleet.upstreams, places)
        self._snapshot = Snapshot(control, fleet.agents, first_route)
        self._shadows = Shadows(self._client, fleet.upstreams, graders, self._record, self._metrics)
        self._watchdog = Watchdog(control, self._snapshot, lake)
        self._agent_of: OrderedDict[str, str] = OrderedDict()
        self._looking = asyncio.Lock()
        self._started = time.time()
        self._tasks: list[asyncio.Task[None]] = []
        self._handlers: dict[tuple[str, str], Callable[[Scope, Receive, Send], Any]] = {
            ("POST", "/v1/chat/completions"): self._chat,
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

        try:
            handler = self._handlers.get((scope["method"], scope["path"]))
            if handler is None:
                known = ", ".join(f"{m} {p}" for m, p in self._handlers)
                raise Refused(404, f"there is no {scope['method']} {scope['path']}; there are: {known}")
            await handler(scope, receive, watched)
        except Refused as e:
            await send_json(send, e.status, e.body())
        except Exception as e:
            if begun:
                raise  # the server cuts the connection: a client must not take half an answer for a whole one
            if isinstance(e, LakeError):
                refused = Refused(503, str(e), "server_error", "not_recorded")
            else:
                log.exception("%s %s failed", scope["method"], scope["path"])
                refused = Refused(500, "the gateway failed; its log says why", "server_error", "internal_error")
            await send_json(send, refused.status, refused.body())

    # -- paths

    async def _chat(self, scope: Scope, receive: Receive, send: Send) -> None:
        key = self._door.admit(scope, auth.CLIENTS)
        asked = self._understand(await read_json(receive), scope, key)
        route = self._snapshot.routes[asked.agent]
        order = plan(route, choose(route, asked.session), self._fleet.upstreams)
        answering = asyncio.ensure_future(self._answer(asked, route, order, send))
        leaving = asyncio.ensure_future(_disconnected(receive))
        try:
            await asyncio.wait((answering, leaving), return_when=asyncio.FIRST_COMPLETED)
            if not answering.done():
                answering.cancel()  # nobody is there to read it: the upstream's work ends too
            await asyncio.gather(answering, return_exceptions=False)
        except asyncio.CancelledError:
            if not leaving.done():
                raise
        finally:
            leaving.cancel()

    async def _models(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._door.admit(scope, auth.CLIENTS)
        rows = [
            {"id": a.name, "object": "model", "created": int(self._started), "owned_by": "pawl"}
            for a in self._fleet.agents
        ]
        await send_json(send, 200, {"object": "list", "data": rows})

    async def _feedback(self, scope: Scope, receive: Receive, send: Send) -> None:
        key = self._door.admit(scope, auth.FEEDBACK)
        body = await read_json(receive)
        await self._look_up(body)
        made = read_feedback(body, key.id, self._agent_of.get)
        await self._record(*made)
        await send_json(
            send, 200, {"object": "list", "data": [{"id": f.id, "interaction": f.interaction} for f in made]}
        )

    async def _rollouts(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._door.admit(scope, auth.OPERATORS)
        rows = [
            {
                "agent": name,
                "route": route,
                "rollout": self._snapshot.rollouts.get(name),
                "decision": self._watchdog.latest.get(name),
            }
            for name, route in self._snapshot.routes.items()
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
        text = self._metrics.text(self._snapshot.routes)
        await send_bytes(send, 200, text, b"text/plain; version=0.0.4; charset=utf-8")

    # -- a request's way

    def _understand(self, body: Any, scope: Scope, key: Key) -> Asked:
        if not isinstance(body, dict):
            raise Refused(400, "the body must be a JSON object")
        agent, messages = body.get("model"), body.get("messages")
        if not isinstance(agent, str) or agent not in self._snapshot.routes:
            known = ", ".join(self._snapshot.routes)
            raise Refused(404, f"no agent is called {agent!r}; `model` must be one of: {known}", code="model_not_found")
        if not isinstance(messages, list) or not messages or not all(isinstance(m, dict) for m in messages):
            raise Refused(400, "`messages` must be a list of at least one message")
        if not isinstance(body.get("stream_options") or {}, dict):
            raise Refused(400, "`stream_options` must be an object")
        task = body.get("metadata") if isinstance(body.get("metadata"), dict) else {}
        identity = f"chatcmpl-{uuid.uuid4().hex}"
        user = body.get("user")
        session = header(scope, b"x-pawl-session") or (user if isinstance(user, str) and user else identity)
        return Asked(
            id=identity,
            agent=agent,
            session=session,
            key_id=key.id,
            at=time.time(),
            body=body,
            task=task or {},
            streamed=bool(body.get("stream")),
        )

    async def _answer(self, asked: Asked, route: Route, order: list[tuple[Arm, str]], send: Send) -> None:
        """Try the arms in order; the one that answers carries the response's id, the others get ids of their own."""
        failed: UpstreamFailed | None = None
        for n, (arm, reason) in enumerate(order):
            started, heard = time.time(), Heard()
            stream = Stream(asked, arm, send) if asked.streamed else None
            try:
                if stream:
                    async for chunk in self._client.stream(arm.upstream, body_for(arm, asked, stream=True)):
                        heard.chunk(chunk, started)
                        await stream.forward(chunk)
                    body = None
                else:
                    body = await self._client.call(arm.upstream, body_for(arm, asked, stream=False))
                    heard.whole(body)
            except UpstreamFailed as e:
                begun = stream is not None and stream.begun
                failed, heard.status, heard.error, heard.broken = e, e.status, e.message, begun
                last = begun or not e.retryable or n == len(order) - 1
                identity = asked.id if last else f"chatcmpl-{uuid.uuid4().hex}"
                await self._record(self._interaction(asked, heard, arm, route, identity, started, reason))
                if begun:
                    assert stream is not None
                    await stream.fail(e.message)
                    return
                if last:
                    break
                continue
            except asyncio.CancelledError:
                # 499, as nginx logs it: broken, but by nobody's fault, so it counts for no arm and against none.
                heard.broken, heard.status, heard.finish_reason = True, 499, "client_gone"
                await asyncio.shield(
                    self._record(self._interaction(asked, heard, arm, route, asked.id, started, reason))
                )
                raise
            try:
                await self._record(self._interaction(asked, heard, arm, route, asked.id, started, reason))
            except LakeError as e:
                if stream is None or not stream.begun:
                    raise
                await stream.fail(str(e))  # the client has the text, and is told that it does not count
                return
            if stream:
                await stream.finish()
            else:
                assert body is not None
                body["id"], body["model"] = asked.id, asked.agent
                await send_json(send, 200, body, [(b"x-pawl-arm", arm.name.encode("latin-1", "replace"))])
            self._shadows.send(asked, route, arm)
            return
        assert failed is not None
        status = failed.status if 400 <= failed.status < 500 else 502
        raise Refused(status, failed.message, "upstream_error", "upstream_failed")

    def _interaction(
        self, asked: Asked, heard: Heard, arm: Arm, route: Route, identity: str, started: float, reason: str
    ) -> Interaction:
        upstream = self._fleet.upstreams[arm.upstream]
        return interaction(asked, heard, arm, route, upstream, identity=identity, started=started, reason=reason)

    async def _record(self, *records: Record) -> None:
        await self._recorder.record(*records)
        for record in records:
            self._metrics.count(record)
            self._watchdog.notice(record)
            if isinstance(record, Interaction):
                self._agent_of[record.id] = record.agent
                if len(self._agent_of) > _REMEMBER:
                    self._agent_of.popitem(last=False)

    async def _look_up(self, body: Any) -> None:
        """Learn from the lake whose the interactions are that this process does not remember."""
        rows = [r for r in (body if isinstance(body, list) else [body]) if isinstance(r, dict)]
        ids = {r["interaction"] for r in rows if isinstance(r.get("interaction"), str)}
        if ids <= self._agent_of.keys():
            return
        # In a thread, and one at a time: the lake is large, and ids from nowhere must not stop the traffic.
        async with self._looking:
            self._agent_of.update(await asyncio.to_thread(self._search, ids - self._agent_of.keys()))

    def _search(self, ids: set[str]) -> dict[str, str]:
        found: dict[str, str] = {}
        for agent in self._fleet.agents:
            found.update((i.id, agent.name) for i in self._lake.interactions(agent.name) if i.id in ids)
        return found

    async def _tidy(self) -> None:
        """Seal the journal's segment though traffic pauses, so that it can be ingested."""
        while True:
            await asyncio.sleep(_TIDY_S)
            self._journal.rotate_when_due()

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        while True:
            message = await receive()
            if message["type"] == "lifespan.startup":
                await self._client.start()
                lasting = {
                    "routes": self._snapshot.follow(), "watchdog": self._watchdog.watch(), "journal": self._tidy()
                }  # fmt: skip
                self._tasks = [asyncio.create_task(run, name=name) for name, run in lasting.items()]
                await send({"type": "lifespan.startup.complete"})
            elif message["type"] == "lifespan.shutdown":
                await self._shadows.drain(10)
                for task in self._tasks:
                    task.cancel()
                await self._client.close()
                self._journal.close()
                await send({"type": "lifespan.shutdown.complete"})
                return


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
