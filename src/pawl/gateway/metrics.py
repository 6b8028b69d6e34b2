"""Prometheus metrics of one gateway."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from pawl.lake.records import Feedback, Record
from pawl.rollout.route import Route


class Metrics:
    """Counts what is recorded; labels are agents and arms, never what a client sent."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        labels = ("agent", "arm", "role")
        own = self._registry
        self._calls = Counter("pawl_interactions", "Calls to arms", (*labels, "outcome"), registry=own)
        self._tokens = Counter("pawl_tokens", "Tokens", (*labels, "kind"), registry=own)
        self._cost = Counter("pawl_cost_usd", "Cost by the upstreams' prices", labels, registry=own)
        buckets = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 40, 80)
        self._latency = Histogram("pawl_latency_seconds", "Whole call", labels, buckets=buckets, registry=own)
        self._first = Histogram(
            "pawl_first_token_seconds", "First token of streams", labels, buckets=buckets, registry=own
        )
        self._feedback = Counter("pawl_feedback", "Feedback", ("agent", "kind"), registry=own)
        self._share = Gauge("pawl_challenger_percent", "Share of sessions at the challenger", ("agent",), registry=own)
        self.dropped = Counter(
            "pawl_shadows_dropped", "Shadow calls given up for want of room", ("agent",), registry=own
        )

    def count(self, record: Record) -> None:
        """Take one record in."""
        if isinstance(record, Feedback):
            self._feedback.labels(record.agent, record.kind).inc()
            return
        labels = (record.agent, record.arm, record.role)
        self._calls.labels(*labels, "error" if record.error else "ok").inc()
        self._tokens.labels(*labels, "prompt").inc(record.prompt_tokens)
        self._tokens.labels(*labels, "completion").inc(record.completion_tokens)
        self._cost.labels(*labels).inc(record.cost_usd)
        self._latency.labels(*labels).observe(record.latency_s)
        if record.first_token_s is not None:
            self._first.labels(*labels).observe(record.first_token_s)

    def text(self, routes: dict[str, Route]) -> bytes:
        """The exposition."""
        for agent, route in routes.items():
            self._share.labels(agent).set(route.percent)
        return generate_latest(self._registry)
