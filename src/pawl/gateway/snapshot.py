"""The route table in memory, at most a quarter of a second old."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from pawl.fleet.spec import AgentSpec
from pawl.rollout.control import ControlStore
from pawl.rollout.route import Route
from pawl.rollout.state import Rollout

log = logging.getLogger("pawl.snapshot")
EVERY_S = 0.2


class Snapshot:
    """Reads the control database when it changed. Replaces whole dictionaries, so no request sees half a change."""

    def __init__(
        self, control: ControlStore, agents: tuple[AgentSpec, ...], first: Callable[[AgentSpec], Route]
    ) -> None:
        self._control, self._agents, self._first = control, agents, first
        self._seen: int | None = None
        self.routes: dict[str, Route] = {}
        self.rollouts: dict[str, Rollout] = {}
        self.refresh()

    def refresh(self) -> None:
        """Read now."""
        self._seen = self._control.changes()
        known = {r.agent: r for r in self._control.routes()}
        self.routes = {a.name: known.get(a.name) or self._first(a) for a in self._agents}
        open_ones = {a.name: self._control.open_rollout(a.name) for a in self._agents}
        self.rollouts = {name: r for name, r in open_ones.items() if r is not None}

    async def follow(self) -> None:
        """For ever: look whether anything changed."""
        while True:
            await asyncio.sleep(EVERY_S)
            try:
                if self._control.changes() != self._seen:
                    self.refresh()
            except Exception:  # the routes in memory go on; a loop that ends would keep them for ever
                log.exception("the control database could not be read; trying again")
