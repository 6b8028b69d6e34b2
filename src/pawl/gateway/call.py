"""One request on its way through its arms: retries, the cascade's check, the record, the answer."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import aclosing
from typing import Any, NamedTuple

from pawl.errors import LakeError
from pawl.fleet.routing import CascadeSpec
from pawl.fleet.spec import FleetSpec
from pawl.gateway.access.audit_trail import AuditTrail
from pawl.gateway.access.privacy import host
from pawl.gateway.api.forms import Form
from pawl.gateway.cascade import Grader, refusal
from pawl.gateway.exchange import PATHS, Asked, Heard, body_for, graded, interaction, new_id
from pawl.gateway.metrics import Metrics
from pawl.gateway.routing.load import LoadBook
from pawl.gateway.routing.policy import Choice
from pawl.gateway.routing.router import Router
from pawl.gateway.upstreams.client import UpstreamClient, UpstreamFailed
from pawl.gateway.wire import Send, send_json
from pawl.lake.records import Interaction, Record
from pawl.rollout.route import Arm, Route

log = logging.getLogger("pawl.gateway")
_PAUSE_S = (0.05, 0.25)  # before another try, at random in between: callers that failed together must not return so
_LONGEST_PAUSE_S = 2.0  # a Retry-After beyond it is not waited for


class Means(NamedTuple):
    """What calls need of the gateway."""

    fleet: FleetSpec
    client: UpstreamClient
    router: Router
    book: LoadBook
    audit: AuditTrail
    metrics: Metrics
    graders: Mapping[str, Grader]
    cascades: Mapping[str, CascadeSpec]
    record: Callable[..., Awaitable[None]]


def cloud_call(asked: Asked, arm: Arm, means: Means) -> dict[str, Any]:
    """What the audit log keeps of a request that leaves for a cloud: where it goes, never what it says."""
    where = ", ".join(host(url) for url in means.client.urls[arm.upstream])
    return {"id": asked.id, "agent": asked.agent, "upstream": arm.upstream, "host": where, "mode": asked.privacy}


class Call:
    """One request on its way through its arms."""

    def __init__(self, means: Means, asked: Asked, route: Route, form: Form, send: Send) -> None:
        self._m, self._asked, self._route, self._form, self._send = means, asked, route, form, send
        self._draft: tuple[Choice, Heard, float, dict[str, object]] | None = None
        self._draft_score = 0.0
        self.begun = False  # something of an answer has left
        self.answered = False  # all of it has

    @property
    def waits_for(self) -> str | None:
        """The upstream that must answer now: the cascade's, where its check refused an answer."""
        cascade = self._m.cascades.get(self._asked.agent)
        return cascade.upstream if cascade and self._draft is not None else None

    async def attempt(self, choice: Choice, *, last: bool) -> UpstreamFailed | None:
        """Ask one arm, again where it was only busy; None where the client has its answer."""
        m, arm = self._m, choice.arm
        spec, breaker = m.fleet.upstreams[arm.upstream], m.book.arm(arm).breaker
        started = time.time()
        attempts = 0
        while True:
            attempts += 1
            heard = Heard(attempts=attempts)
            breaker.begin(time.monotonic())
            try:
                if arm.kind == "cloud":
                    await m.audit.add("cloud call", self._asked.key_id, cloud_call(self._asked, arm, m))
                if self._asked.streamed:
                    await self._stream(choice, heard, started)
                    body = None
                else:
                    body = await m.client.call(
                        arm.upstream,
                        PATHS[self._asked.endpoint],
                        body_for(arm, self._asked, stream=False),
                        self._reach(),
                        self._asked.session,
                    )
                    heard.whole(body)
            except UpstreamFailed as e:
                if e.its_fault:
                    breaker.failed(time.monotonic())
                else:
                    breaker.forget()
                if e.passing and attempts <= spec.retries and not self.begun:
                    pause = e.retry_after_s if e.retry_after_s is not None else random.uniform(*_PAUSE_S)
                    if pause <= _LONGEST_PAUSE_S and breaker.admits(time.monotonic()):
                        m.metrics.retried(arm.upstream)
                        await asyncio.sleep(pause)
                        continue
                await self._failed(choice, heard, started, e, last=last)
                return e
            except asyncio.CancelledError:
                breaker.forget()
                await self._left(choice, heard, started)
                raise
            except BaseException:
                breaker.forget()
                raise
            took = time.time() - started
            breaker.succeeded(time.monotonic(), heard.first_token_s or took)
            m.book.arm(arm).took(took)
            try:
                good = body is None or await self._keeps(choice, heard)
            except asyncio.CancelledError:
                await self._left(choice, heard, started)
                raise
            if body is not None and not good:
                self._draft = (choice, heard, started, body)
                return UpstreamFailed(502, f"the answer of {arm.name} did not pass the cascade's check")
            await self._finish(choice, heard, started, body)
            return None

    async def draft_is_the_answer(self) -> bool:
        """Where nobody better answered, the client gets what the check refused rather than nothing."""
        if self._draft is None:
            return False
        (choice, heard, started, body), self._draft = self._draft, None
        await self._finish(choice, heard, started, body)
        return True

    async def _keeps(self, choice: Choice, heard: Heard) -> bool:
        """Whether the cascade lets this answer through; where not, what it scored is kept."""
        cascade = self._m.cascades.get(self._asked.agent)
        if cascade is None or choice.arm.upstream == cascade.upstream or self._draft is not None:
            return True
        if cascade.upstream not in self._reach():
            return True  # nobody stronger may see it
        try:
            score = await refusal(cascade, self._asked, heard, self._m.graders.get(self._asked.agent))
        except Exception:  # a check that breaks must cost nobody an answer
            log.exception("the cascade's check failed; the answer passes")
            return True
        self._draft_score = 0.0 if score is None else score
        return score is None

    async def _stream(self, choice: Choice, heard: Heard, started: float) -> None:
        m, arm = self._m, choice.arm
        body = body_for(arm, self._asked, stream=True)
        path = PATHS[self._asked.endpoint]
        asking = m.client.stream(arm.upstream, path, body, self._reach(), self._asked.session)
        async with aclosing(asking) as chunks:
            async for chunk in chunks:
                heard.chunk(chunk, started)
                events = self._form.chunk(chunk)
                if events:
                    await self._event(choice, events)

    async def _finish(self, choice: Choice, heard: Heard, started: float, body: dict[str, object] | None) -> None:
        m = self._m
        try:
            # Shielded: once the line is in the journal, whatever counts must hear of it.
            await asyncio.shield(m.record(*self._drafts(), self._interaction(choice, heard, started)))
        except LakeError as e:
            if not self.begun:
                raise
            # It has the text, and is told that it does not count.
            await self._event(choice, self._form.broken(str(e)), more=False)
            return
        self._draft = None
        if body is None:
            await self._event(choice, self._form.end(), more=False)
        else:
            name = choice.arm.name.encode("latin-1", "replace")
            await send_json(self._send, 200, self._form.whole(body), [(b"x-pawl-arm", name)])
        self.answered = True

    async def _left(self, choice: Choice, heard: Heard, started: float) -> None:
        """The client is gone. 499, as nginx logs it: broken, by nobody's fault, so it counts for and against no arm."""
        heard.broken, heard.status, heard.finish_reason = True, 499, "client_gone"
        records = [*self._drafts(), self._interaction(choice, heard, started)]
        self._draft = None
        await asyncio.shield(self._m.record(*records))

    async def abandoned(self) -> None:
        """The request ends without an answer: what a check refused was paid for all the same."""
        drafts = self._drafts()
        self._draft = None
        if drafts:
            await asyncio.shield(self._m.record(*drafts))

    def _drafts(self) -> list[Record]:
        """The answer that the cascade's check refused, where there is one: it was paid for, and speaks of its arm."""
        if self._draft is None:
            return []
        choice, heard, started, _ = self._draft
        draft = self._interaction(choice, heard, started, identity=new_id(), role="draft")
        return [draft, graded(draft, self._draft_score)]

    async def _failed(self, choice: Choice, heard: Heard, started: float, e: UpstreamFailed, *, last: bool) -> None:
        heard.status, heard.error, heard.broken = e.status, e.message, self.begun
        final = (self.begun or last or not e.its_fault) and self._draft is None
        identity = self._asked.id if final else new_id()
        await asyncio.shield(self._m.record(self._interaction(choice, heard, started, identity=identity)))
        if self.begun:
            await self._event(choice, self._form.broken(e.message), more=False)

    async def _event(self, choice: Choice, data: bytes, *, more: bool = True) -> None:
        if not self.begun:
            self.begun = True
            headers = [
                (b"content-type", b"text/event-stream; charset=utf-8"),
                (b"cache-control", b"no-cache"),
                (b"x-pawl-arm", choice.arm.name.encode("latin-1", "replace")),
            ]
            await self._send({"type": "http.response.start", "status": 200, "headers": headers})
        await self._send({"type": "http.response.body", "body": data, "more_body": more})

    def _reach(self) -> frozenset[str]:
        return self._m.router.reach(self._asked.privacy)

    def _interaction(
        self, choice: Choice, heard: Heard, started: float, *, identity: str | None = None, role: str = "answer"
    ) -> Interaction:
        upstream = self._m.fleet.upstreams[choice.arm.upstream]
        return interaction(
            self._asked,
            heard,
            choice,
            self._route,
            upstream,
            identity=identity or self._asked.id,
            started=started,
            role=role,
        )
