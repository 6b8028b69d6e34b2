"""Keeps a traffic engine's split as the route table says, for agents whose requests are split elsewhere."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterator, Mapping

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from pawl.errors import PawlError
from pawl.rollout import backends
from pawl.rollout.backends import Demand
from pawl.rollout.control import ControlStore
from pawl.rollout.route import Route
from pawl.rollout.traffic import TrafficEngine

log = logging.getLogger("pawl.traffic")
_LOOK_S = 0.5
_AGAIN_S = 5.0  # after a failure, and at the latest to put back what somebody else wrote


class TrafficFollower:
    """Writes each change of a route to its engine within a second; whoever else wrote is overruled within five."""

    def __init__(
        self,
        engines: Mapping[str, TrafficEngine],
        routes: Callable[[], Mapping[str, Route]],
        control: ControlStore,
    ) -> None:
        """`engines`: by agent. `control`: keeps which model stands behind which of an engine's backends."""
        self._engines, self._routes, self._control = engines, routes, control
        self._written: dict[str, tuple[Route, float]] = {}
        self._failed: dict[str, tuple[Route, float]] = {}
        self.behind = dict.fromkeys(engines, True)  # agents whose engine is not known to have the route's split

    async def follow(self) -> None:
        """For ever. Each agent by itself: an engine that does not answer holds up no other."""
        await asyncio.gather(*(self._follow(agent) for agent in self._engines))

    async def _follow(self, agent: str) -> None:
        while True:
            await self.look(agent)
            await asyncio.sleep(_LOOK_S)

    async def look(self, agent: str) -> None:
        """One agent: write where it is due."""
        now, route = time.monotonic(), self._routes()[agent]
        known, failed = self._written.get(agent), self._failed.get(agent)
        fresh = known is None or known[0] != route
        # A new route never waits for the end of an old one's trouble: it may be the way back.
        if any(done is not None and done[0] == route and now - done[1] < _AGAIN_S for done in (known, failed)):
            return
        self.behind[agent] = self.behind[agent] or fresh
        try:
            asked, changed = await asyncio.to_thread(self._write, agent, route)
        except PawlError as e:
            self._failed[agent], self.behind[agent] = (route, now), True
            log.error("%s: its split could not be written, trying again: %s", agent, e)
            return
        self._written[agent], self.behind[agent] = (route, now), asked.now != asked.wanted
        if changed:
            said = "" if fresh else "; somebody else had changed it"
            in_force = asked.now
            log.info(
                "%s: backend champion %d %%, challenger %d %%%s", agent, in_force.champion, in_force.challenger, said
            )
        if asked.unkept is not None:
            log.error(
                "%s: who stands behind its backends could not be kept, trying again; until then the champion has all "
                "of the traffic (`pawl database grants --traffic` lets a gateway's role keep it): %s",
                agent,
                asked.unkept,
            )

    def _write(self, agent: str, route: Route) -> tuple[Demand, bool]:
        asked = backends.follow(self._control, route)
        return asked, self._engines[agent].write(asked.now)


class TrafficMetrics(Collector):
    """Whether engines do as the route table says, as Prometheus sees it."""

    def __init__(self, behind: Mapping[str, bool]) -> None:
        self._behind = behind

    def describe(self) -> Iterator[Metric]:
        """Nothing: names are told with their values."""
        return iter(())

    def collect(self) -> Iterator[Metric]:
        """Of now."""
        what = "1 while what splits the agent's traffic beside the gateway has another split than its route"
        made = GaugeMetricFamily("pawl_traffic_behind", what, labels=["agent"])
        for agent, behind in list(self._behind.items()):
            made.add_metric([agent], float(behind))
        yield made
