"""The gateway's parts, put together once at its start, and what lasts while it runs."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine, Mapping
from pathlib import Path
from typing import Any, Protocol

import psutil

from pawl.errors import ConfigError
from pawl.fleet.clouds import cloud_of
from pawl.fleet.limits import LimitsSpec
from pawl.fleet.routing import RoutingSpec
from pawl.fleet.spec import AgentSpec, FleetSpec
from pawl.fleet.upstream import UpstreamSpec
from pawl.gateway.access.audit_trail import AuditTrail
from pawl.gateway.access.auth import Doorkeeper, Identities
from pawl.gateway.access.limits import Meter, periods
from pawl.gateway.access.privacy import leaks, reachable
from pawl.gateway.answering import Answering
from pawl.gateway.api.feedback import FeedbackDesk
from pawl.gateway.api.understand import EMBEDDINGS, Reader
from pawl.gateway.auto import Picker
from pawl.gateway.call import Means
from pawl.gateway.cascade import Grader
from pawl.gateway.chains import Promise
from pawl.gateway.cluster_metrics import ClusterMetrics
from pawl.gateway.loop_metrics import LoopMetrics
from pawl.gateway.metrics import Metrics, is_cloud_fallback
from pawl.gateway.recorder import Recorder
from pawl.gateway.routing.fallback_share import FallbackShare
from pawl.gateway.routing.load import LoadBook
from pawl.gateway.routing.router import Router
from pawl.gateway.shadows import Shadows
from pawl.gateway.snapshot import Snapshot
from pawl.gateway.traffic_follower import TrafficFollower, TrafficMetrics
from pawl.gateway.upstreams.client import UpstreamClient
from pawl.gateway.watchdog import Watchdog
from pawl.lake.journal import Journal
from pawl.lake.parquet_lake import ParquetLake
from pawl.lake.records import Interaction, Record
from pawl.rollout.control import ControlStore
from pawl.rollout.events import Events
from pawl.rollout.route import Arm, Route
from pawl.rollout.traffic import TrafficEngine
from pawl.serving.reconciler import Reconciler

_TIDY_S = 5.0
_SETTLE_S = 1.0  # spending reaches the control database, and other gateways', within this time
log = logging.getLogger("pawl.gateway")


class SpanSink(Protocol):
    """Where records go as telemetry."""

    def notice(self, made: Interaction) -> None: ...
    def close(self) -> None: ...


class Parts:
    """Everything one gateway is made of. ConfigError where strict privacy could be left."""

    def __init__(
        self,
        fleet: FleetSpec,
        home: Path,
        control: ControlStore,
        lake: ParquetLake,
        journal: Journal,
        graders: Mapping[str, Grader],
        places: Mapping[str, str],
        first_route: Callable[[AgentSpec], Route],
        arm_of: Callable[[str], Arm],
        events: Events,
        *,
        wait_for_disk: bool = False,
        identities: Callable[[AuditTrail], Identities] | None = None,
        services: Mapping[str, str] | None = None,
        spans: SpanSink | None = None,
        promises: Mapping[str, Promise] | None = None,
        picker: Picker | None = None,
        cluster: Reconciler | None = None,
        finds_replicas: bool = False,
        engines: Mapping[str, TrafficEngine] | None = None,
    ) -> None:
        self.promises, self.picker, self.events = promises or {}, picker, events
        self.fleet, self.control, self.home, self._journal = fleet, control, home, journal
        self.cluster = cluster
        looks = {fleet.local_upstream: cluster.look_of} if cluster else {}
        found = {fleet.local_upstream: cluster.bases} if cluster and finds_replicas else {}
        self.client = UpstreamClient(fleet.upstreams, places, looks, found)
        if problems := leaks(fleet, self.client.urls, services or {}):
            raise ConfigError("the fleet's privacy", problems)
        self._spans = spans
        writers = {name: promise.tests_in for name, promise in self.promises.items()}
        self.metrics = Metrics(_clouds(fleet), writers)
        if cluster is not None:
            self.metrics.also(ClusterMetrics(cluster, lambda: self.client.balanced))
        self.audit = AuditTrail(control)
        self.door = Doorkeeper(control, identities(self.audit) if identities else None)
        self.reader = Reader(fleet)
        self.meter = Meter(time.time)
        self._agent_limits = {a.name: a.limits for a in fleet.agents}
        self._recorder = Recorder(journal, wait_for_disk=wait_for_disk)
        self.snapshot = Snapshot(control, fleet.agents, first_route)
        self.routes = _routes_of_services(fleet)
        self.book = LoadBook(fleet.upstreams)
        rules = {a.name: a.routing for a in fleet.agents} | {EMBEDDINGS: RoutingSpec(fallback=())}
        router = Router(fleet.upstreams, rules, self.book, reachable(fleet, self.client.urls), arm_of, time.monotonic)
        cascades = {a.name: a.routing.cascade for a in fleet.agents if a.routing.cascade}
        means = Means(fleet, self.client, router, self.book, self.audit, self.metrics, graders, cascades, self.record)
        self._shadows = Shadows(means)
        self.answering = Answering(means, self._shadows)
        self.watchdog = Watchdog(control, self.snapshot, lake, {a.name: a.rollout for a in fleet.agents}, events)
        self.desk = FeedbackDesk(
            lake, [a.name for a in fleet.agents], {c.name: {a for s in c.steps for a in s.agents} for c in fleet.chains}
        )
        self._fallbacks = {a.name: FallbackShare(fleet.gateway.fallback_alerts) for a in fleet.agents}
        self._loop = LoopMetrics(control, self.snapshot, lambda: self.watchdog.alarms, home)
        self.metrics.also(self._loop)
        self._traffic = TrafficFollower(engines, lambda: self.snapshot.routes, control) if engines else None
        if self._traffic is not None:
            self.metrics.also(TrafficMetrics(self._traffic.behind))

    async def record(self, *records: Record) -> None:
        """Journal records, then let everything that counts take them in."""
        await self._recorder.record(*records)
        for record in records:
            self.watchdog.notice(record)
            if isinstance(record, Interaction):
                self.metrics.count(record)
                self._took_place(record)
                continue
            arm = self.desk.arm_of(record.interaction)
            self.metrics.count(record, arm)
            load = self.book.known().get(arm) if arm else None
            if load is not None and record.score is not None:
                load.scored(record.score, time.monotonic())

    def _took_place(self, made: Interaction) -> None:
        self.desk.remember(made)
        if self._spans is not None:
            self._spans.notice(made)
        tokens = made.prompt_tokens + made.completion_tokens
        self.meter.used(f"agent:{made.agent}", self._agent_limits.get(made.agent, _NO_LIMITS), tokens, made.cost_usd)
        if made.role == "shadow":
            return  # the agent's to pay, not the client's
        terms = self.door.terms.get(made.key_id)
        self.meter.used(f"key:{made.key_id}", terms.limits if terms else _NO_LIMITS, tokens, made.cost_usd)
        share = self._fallbacks.get(made.agent)
        if made.role != "answer" or made.error is not None or share is None:
            return
        for bound in share.note(is_cloud_fallback(made)):
            self.metrics.fallback_alerts.labels(made.agent, f"{bound:g}").inc()
            log.warning("%s: clouds answered %.1f %% of the latest requests for local arms (bound %g %%)",
                        made.agent, 100 * share.share, 100 * bound)  # fmt: skip
            self.audit.note(
                "cloud fallback alert", "gateway", {"agent": made.agent, "share": share.share, "bound": bound}
            )

    def exposition(self) -> bytes:
        """The metrics, as Prometheus reads them."""
        shares = {agent: share.share for agent, share in self._fallbacks.items()}
        return self.metrics.text(self.snapshot.routes, shares, self.book, time.monotonic())

    async def start(self) -> None:
        """Open the connections and read what was spent."""
        await self.client.start()
        self.meter.learn(await asyncio.to_thread(self.control.spending, periods(time.time())))
        self.metrics.start.set(time.time() - psutil.Process().create_time())

    def lasting(self) -> dict[str, Coroutine[Any, Any, None]]:
        """What must run as long as the gateway does, by name."""
        return {
            "routes": self.snapshot.follow(),
            "watchdog": self.watchdog.watch(),
            "journal": self._tidy(),
            "spending": self._settle(),
            "figures": self._loop.follow(),
            **({"cluster": self.cluster.watch()} if self.cluster else {}),
            **({"traffic": self._traffic.follow()} if self._traffic else {}),
        }

    async def drain(self, seconds: float) -> None:
        """Let what was begun end."""
        await self._shadows.drain(seconds)
        await self.audit.drain()
        await self._write_spending()

    async def close(self) -> None:
        """Let go of connections and of the journal."""
        await self.client.close()
        if self._spans is not None:
            await asyncio.to_thread(self._spans.close)
        self._journal.close()

    async def _tidy(self) -> None:
        """Seal the journal's segment though traffic pauses, so that it can be ingested."""
        while True:
            await asyncio.sleep(_TIDY_S)
            self._journal.rotate_when_due()

    async def _settle(self) -> None:
        """Write what was spent, read what others spent."""
        while True:
            await asyncio.sleep(_SETTLE_S)
            await self._write_spending()

    async def _write_spending(self) -> None:
        fresh = self.meter.take_fresh()
        try:
            if fresh:
                await asyncio.to_thread(self.control.spend, fresh)
        except Exception:  # budgets go on with what this gateway knows
            self.meter.give_back(fresh)
            log.exception("what was spent could not be written; trying again")
            return
        try:
            self.meter.learn(await asyncio.to_thread(self.control.spending, periods(time.time())))
        except Exception:
            log.exception("what was spent could not be read; trying again")


_NO_LIMITS = LimitsSpec()


def _clouds(fleet: FleetSpec) -> dict[str, UpstreamSpec]:
    """By agent, what prices "all in the cloud": the cloud it names first, else the fleet's first; none without one."""
    found = {a.name: cloud_of(fleet, a.name) for a in fleet.agents}
    return {agent: fleet.upstreams[name] for agent, name in found.items() if name is not None}


def _routes_of_services(fleet: FleetSpec) -> dict[str, Route]:
    """Routes of what is no agent: there is nothing to roll out."""
    spec = fleet.gateway.embeddings
    if spec is None:
        return {}
    kind = fleet.upstreams[spec.upstream].kind
    return {EMBEDDINGS: Route(agent=EMBEDDINGS, champion=Arm(spec.model, spec.upstream, spec.model, kind))}
