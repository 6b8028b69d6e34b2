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
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor

from pawl.errors import PawlError, StaleWrite
from pawl.fleet.rollout import RolloutSpec
from pawl.gateway.remembered import Remembered, essence
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
_IDLE_SHARE = 9  # and at most a tenth of a core
# With tens of thousands of calls that tenth would put a rollback off for longer than is promised: up to a third, then.
_PUT_OFF_S, _IDLE_AT_LEAST = 2.0, 2
_TICK_S = 1.0  # a look without news: time alone can make a stage ready
_FIRST_READ_S = 5.0  # a look waits so long for what was recorded before this process
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
        self._readings: dict[str, asyncio.Task[None]] = {}
        # Judging 20,000 sessions takes a third of a second, in which clients must be answered; and a thread of its own,
        # so that nothing that hangs elsewhere keeps a bad challenger.
        self._judge = ThreadPoolExecutor(1, thread_name_prefix="watchdog")
        self._spent = 0.0  # seconds of a core that the latest look took
        self.alarms: dict[str, str] = {}  # agent -> what is wrong with what serves it
        self._news = asyncio.Event()
        self._seen: dict[str, Remembered] = {}
        self.latest: dict[str, Decision] = {}

    def notice(self, record: Record) -> None:
        """Something was journalled."""
        route = self._snapshot.routes.get(record.agent)
        if route is not None and record.agent in self._champions:
            bare = essence(record) if isinstance(record, Interaction) else record
            self._champions[record.agent].take(bare, route)
        held = self._seen.get(record.agent)
        if held is None:
            return
        held.take(record)
        if isinstance(record, Feedback) or (record.rollout == held.rollout and record.error is not None):
            self._news.set()

    async def watch(self) -> None:
        """For ever: look when there is news, and once a second."""
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._news.wait(), _TICK_S)
            self._news.clear()
            try:
                await self.look()
                if time.monotonic() - self._looked_at >= _CHAMPIONS_S:
                    self._looked_at = time.monotonic()
                    self.look_at_champions()
            except Exception:  # whatever it is: a watchdog that ended would let a bad challenger go on
                log.exception("the watchdog could not look; it tries again")
            await asyncio.sleep(pause_s(self._spent))

    async def look(self) -> None:
        """One look at every open rollout; what breaks at one leaves the others theirs."""
        self._spent = 0.0
        for agent in list(self._seen):
            if agent not in self._snapshot.rollouts:
                del self._seen[agent]
                self.latest.pop(agent, None)
        for agent, rollout in list(self._snapshot.rollouts.items()):
            try:
                await self._look_at(agent, rollout)
            except Exception:
                log.exception("the watchdog could not look at %s; it tries again", agent)

    async def _look_at(self, agent: str, rollout: Rollout) -> None:
        await self._remember(agent, rollout)
        calls, said = self._seen[agent].records()
        judging = asyncio.get_running_loop().run_in_executor(self._judge, _judged, rollout, calls, said, self._now())
        decision, took = await judging
        self._spent += took
        self.latest[agent] = decision
        if decision.action in ("rollback", "halve", "hold"):
            await self._stop(agent, rollout, decision)
        elif decision.action == "advance" and self._ready.get(agent) != (rollout.id, rollout.stage):
            self._ready[agent] = (rollout.id, rollout.stage)
            self._tell("pawl.rollout.ready", rollout, decision.reason)

    def look_at_champions(self) -> None:
        """Alarm where what serves an agent breaks a limit, and say so when it keeps them again."""
        for agent, latest in self._champions.items():
            champion = self._snapshot.routes[agent].champion.name
            wrong, before = latest.alarm(self._specs[agent], champion), self.alarms.get(agent, "")
            if bool(wrong) == bool(before):
                continue
            now = self._now()
            if wrong:
                self.alarms[agent] = wrong
                log.warning("%s: %s, which serves it, breaks a limit: %s", agent, champion, wrong)
            else:
                del self.alarms[agent]
                log.info("%s: %s keeps its limits again", agent, champion)
            name: Name = "pawl.champion.alarm" if wrong else "pawl.champion.well"
            self._emit(Event(name=name, agent=agent, version=champion, at=now, detail={"why": wrong or before}))
            what = "champion alarm" if wrong else "champion alarm over"
            detail = {"agent": agent, "champion": champion, "why": wrong or before}
            self._judge.submit(self._audit, what, detail, now)

    def _audit(self, what: str, detail: dict[str, str], now: float) -> None:
        try:
            self._control.audit(what, "watchdog", detail, now)
        except PawlError:
            log.exception("the alarm about %s could not be audited", detail["agent"])

    async def _remember(self, agent: str, rollout: Rollout) -> None:
        """Records from before this process, or of other gateways, come from the lake, while looks go on."""
        held, patience = self._seen.get(agent), 0.0
        if held is None or held.rollout != rollout.id:
            held, patience = Remembered(rollout), _FIRST_READ_S
            self._seen[agent] = held
        running = self._readings.get(rollout.id)
        if running is None and held.due():
            running = self._readings[rollout.id] = asyncio.create_task(self._read(held))
        if running is not None and patience:
            await asyncio.wait({running}, timeout=patience)

    async def _read(self, held: Remembered) -> None:
        try:
            for record in await asyncio.to_thread(held.read, self._lake, self._now()):
                held.take(record)
        except Exception:  # what this gateway recorded itself decides meanwhile
            log.exception("what other gateways recorded of %s could not be read; it tries again", held.rollout)
        finally:
            del self._readings[held.rollout]
            self._news.set()

    async def _stop(self, agent: str, rollout: Rollout, decision: Decision) -> None:
        now = self._now()
        moved = move(rollout, decision, by="watchdog", now=now)
        if moved is rollout:
            return
        detail = {"agent": agent, "rollout": moved.id, "stage": moved.stage, "why": decision.reason}
        told = AuditEntry(f"rollout {decision.action} by watchdog", "watchdog", detail, now)
        loop = asyncio.get_running_loop()
        try:
            # In its thread: the control database may be far away, and clients must be answered meanwhile.
            await loop.run_in_executor(self._judge, self._control.save_rollout, moved, told)
        except StaleWrite as e:
            log.info("no %s of %s yet, looking again: %s", decision.action, rollout.id, e)
        else:
            log.warning("%s: %s: %s", agent, decision.action, decision.reason)
            self._tell("pawl.rollout.stopped", moved, decision.reason)
        await loop.run_in_executor(self._judge, self._snapshot.refresh)
        now_open = self._snapshot.rollouts.get(agent)
        if now_open is not None and now_open.revision != rollout.revision:
            self._news.set()  # by another writer, or by this one: what is true of it now?

    def _tell(self, name: Name, rollout: Rollout, why: str) -> None:
        detail = {"rollout": rollout.id, "stage": rollout.stage, "why": why}
        self._emit(Event(name=name, agent=rollout.agent, version=rollout.version, at=self._now(), detail=detail))

    def _emit(self, event: Event) -> None:
        """In a thread of its own: nothing here waits for who is told."""
        task = asyncio.create_task(asyncio.to_thread(self._events.emit, event))
        self._telling.add(task)
        task.add_done_callback(self._telling.discard)


def pause_s(spent: float) -> float:
    """Seconds until the next look, after one that took so much of a core (pure): five at most from a record to the
    decision that it leads to, as long as a look takes no more than 1.2 (some 60,000 calls)."""
    return max(_SETTLE_S, min(_IDLE_SHARE * spent, max(_PUT_OFF_S, _IDLE_AT_LEAST * spent)))


def _judged(
    rollout: Rollout, calls: Iterable[Interaction], said: Iterable[Feedback], now: float
) -> tuple[Decision, float]:
    """The decision, and the seconds of a core that it took."""
    began = time.thread_time()
    decision = decide(rollout, gather(rollout, calls, said), now)
    return decision, time.thread_time() - began
