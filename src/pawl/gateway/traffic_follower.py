"""Keeps a traffic engine's split as the route table says, for agents whose requests are split elsewhere."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping

from pawl.errors import PawlError
from pawl.rollout.route import Route
from pawl.rollout.traffic import Shares, TrafficEngine, shares

log = logging.getLogger("pawl.traffic")
_LOOK_S = 0.5
_AGAIN_S = 5.0  # after a failure, and at the latest to put back what somebody else wrote


class TrafficFollower:
    """Writes each change of a route to its engine within a second; whoever else wrote is overruled within five."""

    def __init__(self, engines: Mapping[str, TrafficEngine], routes: Callable[[], Mapping[str, Route]]) -> None:
        """`engines`: by agent."""
        self._engines, self._routes = engines, routes
        self._written: dict[str, tuple[Shares, float]] = {}
        self._again: dict[str, float] = {}

    async def follow(self) -> None:
        """For ever."""
        while True:
            await asyncio.gather(*(self.look(agent) for agent in self._engines))
            await asyncio.sleep(_LOOK_S)

    async def look(self, agent: str) -> None:
        """One agent: write where it is due."""
        now, wanted = time.monotonic(), shares(self._routes()[agent])
        known = self._written.get(agent)
        fresh = known is None or known[0] != wanted
        if now < self._again.get(agent, 0.0) or (not fresh and known is not None and now - known[1] < _AGAIN_S):
            return
        try:
            changed = await asyncio.to_thread(self._engines[agent].write, wanted)
        except PawlError as e:
            self._again[agent] = now + _AGAIN_S
            log.error("%s: its split could not be written, trying again: %s", agent, e)
            return
        self._written[agent] = (wanted, now)
        if changed:
            said = "" if fresh else "; somebody else had changed it"
            log.info("%s: champion %d %%, challenger %d %%%s", agent, wanted.champion, wanted.challenger, said)
