"""Shadow calls: other arms answer the same request, no client sees it, the oracle scores it."""

from __future__ import annotations

import asyncio
import logging
import time

from pawl.errors import PawlError
from pawl.gateway.call import Means, cloud_call
from pawl.gateway.exchange import PATHS, Asked, Heard, body_for, graded, interaction, new_id, said
from pawl.gateway.routing.policy import Choice
from pawl.gateway.upstreams.client import UpstreamFailed
from pawl.lake.records import Record
from pawl.rollout.route import Arm, Route

log = logging.getLogger("pawl.shadows")
_AT_ONCE = 16  # calls to one arm
_MOST = 512  # waiting and running, of one arm


class Shadows:
    """Calls shadow arms in the background, each at most once. Where too many wait, new ones are dropped and counted."""

    def __init__(
        self,
        means: Means,
    ) -> None:
        self._m = means
        self._turns: dict[str, asyncio.Semaphore] = {}
        self._count: dict[str, int] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def send(self, asked: Asked, route: Route, answered_by: Arm) -> None:
        """Begin the shadow calls of an answered request."""
        for arm in route.shadows:
            if arm.name == answered_by.name:
                continue
            if arm.upstream not in self._m.router.reach(asked.privacy):
                self._m.metrics.blocked(asked.agent, asked.privacy)
                detail = {"id": asked.id, "agent": asked.agent, "upstream": arm.upstream, "mode": asked.privacy}
                self._m.audit.note("shadow blocked by privacy", asked.key_id, detail)
                continue
            if self._count.get(arm.name, 0) >= _MOST:
                self._m.metrics.dropped.labels(asked.agent).inc()
                continue
            self._count[arm.name] = self._count.get(arm.name, 0) + 1
            task = asyncio.create_task(self._call(asked, route, arm))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def drain(self, seconds: float) -> None:
        """Wait for running calls, then cancel what is left."""
        if self._tasks:
            _, late = await asyncio.wait(self._tasks, timeout=seconds)
            for task in late:
                task.cancel()

    async def _call(self, asked: Asked, route: Route, arm: Arm) -> None:
        try:
            async with self._turns.setdefault(arm.name, asyncio.Semaphore(_AT_ONCE)):
                if arm.kind == "cloud":
                    await self._m.audit.add("cloud shadow", asked.key_id, cloud_call(asked, arm, self._m))
                started, heard = time.time(), Heard()
                path, body = PATHS[asked.endpoint], body_for(arm, asked, stream=False)
                try:
                    reach = self._m.router.reach(asked.privacy)
                    heard.whole(await self._m.client.call(arm.upstream, path, body, reach, asked.session))
                except UpstreamFailed as e:
                    heard.status, heard.error = e.status, e.message
            identity = new_id()
            choice, upstream = Choice(arm, "shadow", False), self._m.fleet.upstreams[arm.upstream]
            made = interaction(asked, heard, choice, route, upstream, identity=identity, started=started, role="shadow")
            records: list[Record] = [made]
            if heard.error is None and asked.agent in self._m.graders:
                try:
                    score = self._m.graders[asked.agent](said(asked), heard.text)
                except Exception as e:  # not gradable is not zero, and the answer is recorded all the same
                    log.info("a shadow answer could not be graded: %r", e)
                else:
                    records.append(graded(made, score))
            await self._m.record(*records)
        except PawlError:
            log.exception("a shadow call could not be recorded")
        finally:
            self._count[arm.name] -= 1
