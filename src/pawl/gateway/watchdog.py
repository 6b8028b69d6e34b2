"""Applies the rollout's decision to everything as it is recorded. It can hold, halve and roll back, nothing else.

It needs neither Prefect nor MLflow: what it looks at was journalled by this gateway or lies in the lake, and what it
writes is the control database. Whoever orchestrates is told what it did, and when a stage is ready to go on. Champions
are held to their limits too, whether or not a rollout is open: that alarms, and moves nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Mapping

from pawl.errors import StaleWrite
from pawl.fleet.rollout import RolloutSpec
from pawl.gateway.snapshot import Snapshot
from pawl.lake.parquet_lake import ParquetLake
from pawl.lake.records import Feedback, Interaction, Record
from pawl.rollout.champion import Latest
from pawl.rollout.control import AuditEntry, ControlStore
from pawl.rollout.decide import decide
from pawl.rollout.events import Event, Events, Name
from pawl.rollout.evidence import gather
from pawl.rollout.state import Decision, Rollout, move

log = logging.getLogger("pawl.watchdog")
_SETTLE_S = 0.1  # at most ten looks a second
_IDLE_SHARE = 9  # and at most a tenth of the event loop's time
_TICK_S = 1.0  # a look without news: time alone can make a stage ready
_REREAD_S = 2.0  # other gateways' records come through the lake
_CHAMPIONS_S = 5.0  # between two looks at what serves


class Watchdog:
    """Keeps the records of open rollouts in memory and the latest decision about each."""

    def __init__(
        self,
        control: ControlStore,
        snapshot: Snapshot,
        lake: ParquetLake,
        specs: Mapping[str, RolloutSpec],
        events: Events,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._control, self._snapshot, self._lake, self._now = control, snapshot, lake, now
        self._specs, self._events = specs, events
        self._champions = {agent: Latest() for agent in specs}
        self._looked_at = 0.0
        self._ready: dict[str, tuple[str, str]] = {}  # agent -> (rollout, stage) that was told to be ready
        self._telling: set[asyncio.Task[bool]] = set()
        self.alarms: dict[str, str] = {}  # agent -> what is wrong with what serves it
        self._news = asyncio.Event()
        self._seen: dict[str, tuple[str, dict[str, Interaction], dict[str, Feedback]]] = {}
        self._read_at: dict[str, float] = {}
        self.latest: dict[str, Decision] = {}

    def notice(self, record: Record) -> None:
        """Something was journalled."""
        route = self._snapshot.routes.get(record.agent)
        if route is not None and record.agent in self._champions:
            self._champions[record.agent].take(record, route)
        held = self._seen.get(record.agent)
        if held is None:
            return
        if isinstance(record, Feedback):
            held[2][record.id] = record
            self._news.set()
        elif record.rollout == held[0]:
            held[1][record.id] = record
            if record.error is not None:
                self._news.set()

    async def watch(self) -> None:
        """For ever: look when there is news, and once a second."""
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._news.wait(), _TICK_S)
            self._news.clear()
            began = time.thread_time()
            try:
                await self.look()
                if time.monotonic() - self._looked_at >= _CHAMPIONS_S:
                    self._looked_at = time.monotonic()
                    self.look_at_champions()
            except Exception:  # whatever it is: a watchdog that ended would let a bad challenger go on
                log.exception("the watchdog could not look; it tries again")
            await asyncio.sleep(max(_SETTLE_S, _IDLE_SHARE * (time.thread_time() - began)))

    async def look(self) -> None:
        """One look at every open rollout."""
        for agent in list(self._seen):
            if agent not in self._snapshot.rollouts:
                del self._seen[agent]
                self.latest.pop(agent, None)
        for agent, rollout in list(self._snapshot.rollouts.items()):
            await self._remember(agent, rollout)
            _, interactions, feedback = self._seen[agent]
            evidence = gather(rollout, list(interactions.values()), list(feedback.values()))
            decision = decide(rollout, evidence, self._now())
            self.latest[agent] = decision
            if decision.action in ("rollback", "halve", "hold"):
                self._stop(agent, rollout, decision)
            elif decision.action == "advance" and self._ready.get(agent) != (rollout.id, rollout.stage):
                self._ready[agent] = (rollout.id, rollout.stage)
                self._tell("pawl.rollout.ready", rollout, decision.reason)

    def look_at_champions(self) -> None:
        """Alarm where what serves an agent breaks a limit, and say so when it keeps them again."""
        for agent, latest in self._champions.items():
            wrong, before = latest.alarm(self._specs[agent]), self.alarms.get(agent, "")
            if bool(wrong) == bool(before):
                continue
            now, champion = self._now(), self._snapshot.routes[agent].champion.name
            if wrong:
                self.alarms[agent] = wrong
                log.warning("%s: %s, which serves it, breaks a limit: %s", agent, champion, wrong)
            else:
                del self.alarms[agent]
                log.info("%s: %s keeps its limits again", agent, champion)
            what = "champion alarm" if wrong else "champion alarm over"
            self._control.audit(what, "watchdog", {"agent": agent, "champion": champion, "why": wrong or before}, now)
            name: Name = "pawl.champion.alarm" if wrong else "pawl.champion.well"
            self._emit(Event(name=name, agent=agent, version=champion, at=now, detail={"why": wrong or before}))

    async def _remember(self, agent: str, rollout: Rollout) -> None:
        """Records from before this process, or of other gateways, come from the lake."""
        known = self._seen.get(agent)
        fresh = known is None or known[0] != rollout.id
        if not fresh and time.monotonic() - self._read_at.get(agent, 0) < _REREAD_S:
            return
        if fresh:
            self._seen[agent] = (rollout.id, {}, {})
        held = self._seen[agent]
        seen = await asyncio.to_thread(self._lake.interactions, agent, rollout.opened_at)
        said = await asyncio.to_thread(self._lake.feedback, agent, rollout.opened_at)
        held[1].update((i.id, i) for i in seen if i.rollout == rollout.id)
        held[2].update((f.id, f) for f in said)
        self._read_at[agent] = time.monotonic()

    def _stop(self, agent: str, rollout: Rollout, decision: Decision) -> None:
        now = self._now()
        moved = move(rollout, decision, by="watchdog", now=now)
        if moved is rollout:
            return
        detail = {"agent": agent, "rollout": moved.id, "stage": moved.stage, "why": decision.reason}
        try:
            self._control.save_rollout(
                moved, AuditEntry(f"rollout {decision.action} by watchdog", "watchdog", detail, now)
            )
        except StaleWrite:
            log.info("another writer moved rollout %s first; looking again", rollout.id)
        else:
            log.warning("%s: %s: %s", agent, decision.action, decision.reason)
            self._tell("pawl.rollout.stopped", moved, decision.reason)
        self._snapshot.refresh()

    def _tell(self, name: Name, rollout: Rollout, why: str) -> None:
        detail = {"rollout": rollout.id, "stage": rollout.stage, "why": why}
        self._emit(Event(name=name, agent=rollout.agent, version=rollout.version, at=self._now(), detail=detail))

    def _emit(self, event: Event) -> None:
        """In a thread of its own: nothing here waits for who is told."""
        task = asyncio.create_task(asyncio.to_thread(self._events.emit, event))
        self._telling.add(task)
        task.add_done_callback(self._telling.discard)
