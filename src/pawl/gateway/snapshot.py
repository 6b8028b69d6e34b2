"""The route table in memory, at most a quarter of a second old."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable

from pawl.errors import PawlError
from pawl.fleet.spec import AgentSpec
from pawl.rollout.control import ControlStore
from pawl.rollout.route import Route
from pawl.rollout.state import Rollout

log = logging.getLogger("pawl.snapshot")
EVERY_S = 0.2
_SAY_S = 60.0  # while the control database is away


class Snapshot:
    """Reads the control database when it changed. Replaces whole dictionaries, so no request sees half a change."""

    def __init__(
        self, control: ControlStore, agents: tuple[AgentSpec, ...], first: Callable[[AgentSpec], Route]
    ) -> None:
        self._control, self._agents, self._first = control, agents, first
        self._seen: int | None = None
        self._reading = threading.Lock()
        self.routes: dict[str, Route] = {}
        self.rollouts: dict[str, Rollout] = {}
        self.refresh()

    def refresh(self) -> None:
        """Read now; from whichever thread. What was read later is never replaced by what was read before."""
        with self._reading:
            seen = self._control.changes()
            known = {r.agent: r for r in self._control.routes()}
            open_ones = {a.name: self._control.open_rollout(a.name) for a in self._agents}
            self.routes = {a.name: known.get(a.name) or self._first(a) for a in self._agents}
            self.rollouts = {name: r for name, r in open_ones.items() if r is not None}
            self._seen = seen

    async def follow(self) -> None:
        """For ever: look whether anything changed; in a thread, since the database may be far away, or gone."""
        away, said = 0.0, 0.0
        while True:
            await asyncio.sleep(EVERY_S)
            try:
                await asyncio.to_thread(self._look)
            except Exception as e:  # the routes in memory go on; a loop that ends would keep them for ever
                now = time.monotonic()
                away = away or now
                if now - said > _SAY_S:
                    said = now
                    log.error("the routes of %.0f s ago go on, trying again: %s", now - away, e,
                              exc_info=None if isinstance(e, PawlError) else e)  # fmt: skip
            else:
                if away:
                    log.warning("the control database is back after %.1f s", time.monotonic() - away)
                away, said = 0.0, 0.0

    def _look(self) -> None:
        if self._control.changes() != self._seen:
            self.refresh()
