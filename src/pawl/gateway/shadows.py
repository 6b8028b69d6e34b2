"""Shadow calls: other arms answer the same request, no client sees it, the oracle scores it."""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from pawl.errors import LakeError
from pawl.fleet.spec import UpstreamSpec
from pawl.gateway.exchange import Asked, Heard, body_for, interaction
from pawl.gateway.metrics import Metrics
from pawl.gateway.upstream_client import UpstreamClient, UpstreamFailed
from pawl.lake.records import Feedback, Record
from pawl.rollout.route import Arm, Route

log = logging.getLogger("pawl.shadows")
Grader = Callable[[list[dict[str, Any]], str], float]
_AT_ONCE = 16  # calls to one arm
_MOST = 512  # waiting and running, of one arm


class Shadows:
    """Calls shadow arms in the background, each at most once. Where too many wait, new ones are dropped and counted."""

    def __init__(
        self,
        client: UpstreamClient,
        upstreams: dict[str, UpstreamSpec],
        graders: Mapping[str, Grader],
        record: Callable[..., Awaitable[None]],
        metrics: Metrics,
    ) -> None:
        self._client, self._upstreams, self._graders = client, upstreams, graders
        self._record, self._metrics = record, metrics
        self._turns: dict[str, asyncio.Semaphore] = {}
        self._count: dict[str, int] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def send(self, asked: Asked, route: Route, answered_by: Arm) -> None:
        """Begin the shadow calls of an answered request."""
        for arm in route.shadows:
            if arm.name == answered_by.name:
                continue
            if self._count.get(arm.name, 0) >= _MOST:
                self._metrics.dropped.labels(asked.agent).inc()
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
                started, heard = time.time(), Heard()
                try:
                    heard.whole(await self._client.call(arm.upstream, body_for(arm, asked, stream=False)))
                except UpstreamFailed as e:
                    heard.status, heard.error = e.status, e.message
            identity = f"chatcmpl-{uuid.uuid4().hex}"
            upstream = self._upstreams[arm.upstream]
            made = interaction(
                asked, heard, arm, route, upstream, identity=identity, started=started, reason="shadow", shadow=True
            )
            records: list[Record] = [made]
            if heard.error is None and asked.agent in self._graders:
                try:
                    score = self._graders[asked.agent](asked.body["messages"], heard.text)
                except Exception as e:  # not gradable is not zero, and the answer is recorded all the same
                    log.info("a shadow answer could not be graded: %r", e)
                else:
                    records.append(
                        Feedback(
                            id=uuid.uuid4().hex,
                            at=time.time(),
                            interaction=identity,
                            agent=asked.agent,
                            kind="outcome",
                            score=score,
                            source="grader",
                        )
                    )
            await self._record(*records)
        except LakeError:
            log.exception("a shadow answer could not be recorded")
        finally:
            self._count[arm.name] -= 1
