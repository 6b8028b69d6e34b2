"""Prometheus metrics of one gateway."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import NamedTuple

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.registry import Collector

from pawl.gateway.routing.load import LoadBook
from pawl.lake.records import Feedback, Interaction, Record
from pawl.rollout.route import Route

_BUCKETS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 40, 80)
_BREAKER = {"closed": 0, "half_open": 1, "open": 2}


class _Series(NamedTuple):
    """The series of one (agent, arm, role): looking labels up costs more than counting."""

    ok: Counter
    error: Counter
    prompt: Counter
    completion: Counter
    cached: Counter
    cost: Counter
    latency: Histogram
    first: Histogram


class Metrics:
    """Counts what is recorded; labels are agents, arms and upstreams, never what a client sent."""

    def __init__(self) -> None:
        self._registry = own = CollectorRegistry()
        labels = ("agent", "arm", "role")
        self._calls = Counter("pawl_interactions", "Calls to arms", (*labels, "outcome"), registry=own)
        self._tokens = Counter("pawl_tokens", "Tokens", (*labels, "kind"), registry=own)
        self._cost = Counter("pawl_cost_usd", "Cost by the upstreams' prices", labels, registry=own)
        self._latency = Histogram("pawl_latency_seconds", "Whole call", labels, buckets=_BUCKETS, registry=own)
        self._first = Histogram(
            "pawl_first_token_seconds", "First token of streams", labels, buckets=_BUCKETS, registry=own
        )
        self._feedback = Counter("pawl_feedback", "Feedback", ("agent", "kind"), registry=own)
        self._share = Gauge("pawl_challenger_percent", "Share of sessions at the challenger", ("agent",), registry=own)
        self._alarms = Gauge("pawl_champion_alarm", "1 while what serves breaks a limit", ("agent",), registry=own)
        self.dropped = Counter(
            "pawl_shadows_dropped", "Shadow calls given up for want of room", ("agent",), registry=own
        )
        self._fallbacks = Counter(
            "pawl_cloud_fallbacks", "Answers a cloud gave for a local arm", ("agent",), registry=own
        )
        self._fallback_share = Gauge(
            "pawl_cloud_fallback_share", "Share of them among the latest answers", ("agent",), registry=own
        )
        self.fallback_alerts = Counter(
            "pawl_cloud_fallback_alerts", "Times that share passed a bound", ("agent", "bound"), registry=own
        )
        self._blocks = Counter("pawl_privacy_blocks", "Upstreams ruled out by privacy", ("agent", "mode"), registry=own)
        self._retries = Counter("pawl_retries", "Calls tried again", ("upstream",), registry=own)
        self._refused = Counter("pawl_refused", "Requests refused by a limit", ("limit",), registry=own)
        self._breakers = Gauge("pawl_breaker", "0 closed, 1 half open, 2 open", ("arm",), registry=own)
        self._inside = Gauge("pawl_upstream_in_flight", "Calls under way", ("upstream",), registry=own)
        self._waiting = Gauge("pawl_upstream_waiting", "Calls in the queue", ("upstream",), registry=own)
        self._series: dict[tuple[str, str, str], _Series] = {}

    def also(self, collector: Collector) -> None:
        """Something more that tells its own series."""
        self._registry.register(collector)

    def count(self, record: Record) -> None:
        """Take one record in."""
        if isinstance(record, Feedback):
            self._feedback.labels(record.agent, record.kind).inc()
            return
        at = (record.agent, record.arm, record.role)
        series = self._series.get(at)
        if series is None:
            series = self._series[at] = self._make(at)
        (series.error if record.error else series.ok).inc()
        series.prompt.inc(record.prompt_tokens)
        series.completion.inc(record.completion_tokens)
        if record.cached_tokens:
            series.cached.inc(record.cached_tokens)
        series.cost.inc(record.cost_usd)
        series.latency.observe(record.latency_s)
        if record.first_token_s is not None:
            series.first.observe(record.first_token_s)
        if is_cloud_fallback(record):
            self._fallbacks.labels(record.agent).inc()

    def blocked(self, agent: str, mode: str) -> None:
        """Privacy ruled an upstream out."""
        self._blocks.labels(agent, mode).inc()

    def retried(self, upstream: str) -> None:
        """A call is tried again."""
        self._retries.labels(upstream).inc()

    def refused(self, limit: str) -> None:
        """A request was refused by a limit."""
        self._refused.labels(limit).inc()

    def text(
        self,
        routes: Mapping[str, Route],
        fallbacks: Mapping[str, float],
        alarms: Collection[str],
        book: LoadBook,
        now: float,
    ) -> bytes:
        """The exposition. `fallbacks`: share of cloud fallback by agent; `alarms`: agents whose champion alarms."""
        for agent, share in fallbacks.items():
            self._fallback_share.labels(agent).set(share)
        for agent, route in routes.items():
            self._share.labels(agent).set(route.percent)
            self._alarms.labels(agent).set(agent in alarms)
        for name, arm in book.known().items():
            self._breakers.labels(name).set(_BREAKER[arm.breaker.state(now)])
        for name, gate in book.turnstiles.items():
            self._inside.labels(name).set(gate.inside)
            self._waiting.labels(name).set(gate.waiting)
        return generate_latest(self._registry)

    def _make(self, at: tuple[str, str, str]) -> _Series:
        return _Series(
            self._calls.labels(*at, "ok"),
            self._calls.labels(*at, "error"),
            self._tokens.labels(*at, "prompt"),
            self._tokens.labels(*at, "completion"),
            self._tokens.labels(*at, "cached"),
            self._cost.labels(*at),
            self._latency.labels(*at),
            self._first.labels(*at),
        )


def is_cloud_fallback(record: Interaction) -> bool:
    """Whether a cloud answered because an arm before it did not (pure)."""
    return record.fallback and record.arm_kind == "cloud" and record.role == "answer" and record.error is None
