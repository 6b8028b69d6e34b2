"""Answers a request: its arms in the router's order until one does."""

from __future__ import annotations

import asyncio
import time

from pawl.gateway.access.limits import retry_after
from pawl.gateway.api.forms import Form
from pawl.gateway.call import Call, Means
from pawl.gateway.exchange import Asked
from pawl.gateway.routing.load import QueueFull
from pawl.gateway.routing.router import Plan
from pawl.gateway.shadows import Shadows
from pawl.gateway.upstreams.client import UpstreamFailed
from pawl.gateway.wire import Refused, Send
from pawl.rollout.route import Route


class Answering:
    """Every call to an arm is recorded before the end of its answer leaves."""

    def __init__(self, means: Means, shadows: Shadows) -> None:
        self._m, self._shadows = means, shadows

    async def answer(self, asked: Asked, route: Route, form: Form, send: Send) -> None:
        """Answer one request. Refused where nobody could."""
        m = self._m
        plan = m.router.plan(route, asked.session, asked.features, asked.complexity, asked.strategy, asked.privacy)
        if plan.barred:
            self._tell_blocks(asked, plan)
        call = Call(m, asked, route, form, send)
        began, outcome = time.monotonic(), "failed"
        try:
            await self._through(plan, call, asked, route)
            outcome = "ok" if call.answered else "failed"
        except Refused as e:
            # 429 is an upstream's here: the client's own limits were looked at before.
            outcome = "failed" if e.status >= 500 or e.status == 429 else "refused"
            raise
        except asyncio.CancelledError:
            outcome = "left"
            raise
        finally:
            m.metrics.ended(asked.agent, outcome, time.monotonic() - began)
            await call.abandoned()

    async def _through(self, plan: Plan, call: Call, asked: Asked, route: Route) -> None:
        m = self._m
        failed: UpstreamFailed | None = None
        for n, choice in enumerate(plan.choices):
            arm = choice.arm
            if call.waits_for not in (None, arm.upstream):
                continue
            gate = m.book.turnstiles[arm.upstream]
            try:
                await gate.enter()
            except QueueFull:
                continue
            try:
                if not m.book.arm(arm).breaker.admits(time.monotonic()):
                    continue  # it opened since the plan was made, or while this call waited for its turn
                failed = await call.attempt(choice, last=n == len(plan.choices) - 1)
            finally:
                gate.leave()
            if failed is None:
                self._shadows.send(asked, route, arm)
                return
            if call.begun:
                return
            if not failed.its_fault:
                break
        if await call.draft_is_the_answer():
            return
        raise _refusal(plan, failed)

    def _tell_blocks(self, asked: Asked, plan: Plan) -> None:
        for bar in plan.barred:
            if bar.kind == "privacy":
                self._m.metrics.blocked(asked.agent, asked.privacy)
                detail = {"id": asked.id, "agent": asked.agent, "upstream": bar.arm.upstream, "mode": asked.privacy}
                self._m.audit.note("upstream blocked by privacy", asked.key_id, detail)


def _refusal(plan: Plan, failed: UpstreamFailed | None) -> Refused:
    """Why nobody answered, with a status that tells the client what to do."""
    if failed is not None:
        theirs = 400 <= failed.status < 500 and failed.status not in (401, 403)
        headers = []
        if failed.retry_after_s is not None:
            headers.append((b"retry-after", retry_after(failed.retry_after_s)))
        return Refused(
            failed.status if theirs else 502, failed.message, "upstream_error", "upstream_failed", headers=headers
        )
    why = "; ".join(f"{b.arm.name} {b.why}" for b in plan.barred) or "every queue is full"
    kinds = {b.kind for b in plan.barred}
    if kinds & {"breaker", "queue"} or not kinds:
        wait = min((b.retry_after_s for b in plan.barred if b.kind in ("breaker", "queue")), default=1.0)
        code = "overloaded" if "queue" in kinds or not kinds else "upstream_resting"
        headers = [(b"retry-after", retry_after(wait))]
        return Refused(503, f"nobody can answer now: {why}", "server_error", code, headers=headers)
    if "capability" in kinds:
        return Refused(400, f"no model of this agent can answer this request: {why}", code="unsupported_request")
    return Refused(403, f"nobody may answer this request: {why}", "permission_error", "privacy_blocked")
