"""Prometheus metrics of one gateway. docs/metrics.md lists them all; `pawl.monitoring.metrics_reference` writes it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import NamedTuple

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from prometheus_client.metrics import MetricWrapperBase
from prometheus_client.registry import Collector

from pawl.fleet.clouds import cloud_of
from pawl.fleet.costs import HOURS_A_MONTH
from pawl.fleet.spec import FleetSpec
from pawl.fleet.upstream import UpstreamSpec
from pawl.gateway.routing.load import LoadBook
from pawl.lake.records import Feedback, Interaction, Record
from pawl.monitoring.economics import price, succeeded
from pawl.monitoring.pricing import paid, unpriced
from pawl.rollout.route import Arm, Route

_BUCKETS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2, 2.5, 5, 10, 20, 40, 80)
_BREAKER = {"closed": 0, "half_open": 1, "open": 2}
_CALL = ("agent", "arm", "arm_kind", "role")
OUTCOMES = ("ok", "failed", "refused", "left")


class _Series(NamedTuple):
    """The series of one (agent, arm, its kind, role): looking labels up costs more than counting."""

    ok: Counter
    error: Counter
    prompt: Counter
    completion: Counter
    cached: Counter
    cost: Counter
    latency: Histogram
    first: Histogram


class _Requests(NamedTuple):
    """The series of one agent's requests."""

    outcomes: dict[str, Counter]
    seconds: Histogram


class _Scores(NamedTuple):
    """The series of one (agent, arm, its kind, kind of feedback)."""

    amount: Counter
    points: Counter
    squares: Counter


class Metrics:
    """Counts what is recorded; labels are agents, arms and upstreams, never what a client sent."""

    def __init__(
        self, clouds: Mapping[str, UpstreamSpec] | None = None, tests: Mapping[str, Callable[[str], int]] | None = None
    ) -> None:
        """`clouds`: by agent, the upstream that "all in the cloud" is priced by; `tests`: what counts the tests in an
        agent's answer."""
        self._clouds, self._tests = clouds or {}, tests or {}
        self._registry = own = CollectorRegistry()
        self.made: list[MetricWrapperBase] = []
        ProcessCollector(registry=own)

        def counter(name: str, what: str, labels: Sequence[str] = ()) -> Counter:
            self.made.append(found := Counter(name, what, labels, registry=own))
            return found

        def gauge(name: str, what: str, labels: Sequence[str] = ()) -> Gauge:
            self.made.append(found := Gauge(name, what, labels, registry=own))
            return found

        def seconds(name: str, what: str, labels: Sequence[str]) -> Histogram:
            self.made.append(found := Histogram(name, what, labels, buckets=_BUCKETS, registry=own))
            return found

        self._requests = counter(
            "pawl_requests", "Requests of clients by outcome: ok, failed, refused, left", ("agent", "outcome")
        )
        self._request_seconds = seconds(
            "pawl_request_seconds", "A client's whole request, queue and fallbacks included", ("agent",)
        )
        self._calls = counter("pawl_interactions", "Calls to arms", (*_CALL, "outcome"))
        self._tokens = counter(
            "pawl_tokens", "Tokens, prompt, completion and cached (of the prompt's)", (*_CALL, "kind")
        )
        self._cost = counter("pawl_cost_usd", "Cost by the upstreams' prices, US dollars", _CALL)
        self._all_cloud = counter(
            "pawl_all_cloud_usd", "What the answers would have cost in the agent's cloud", ("agent",)
        )
        self._outlay = gauge(
            "pawl_outlay_usd_per_hour",
            "What serving locally costs whoever asks; local tokens are paid beside it, or included; missing where "
            "nobody said what local answers cost",
            ("local_tokens",),
        )
        self._generated = counter("pawl_generated_tests", "Tests in the answers that clients got", ("agent",))
        self._latency = seconds("pawl_latency_seconds", "Whole call to an arm", _CALL)
        self._first = seconds("pawl_first_token_seconds", "First token of streams", _CALL)
        self._feedback = counter("pawl_feedback", "Feedback that came", ("agent", "kind"))
        by = ("agent", "arm", "arm_kind", "kind")
        self._amount = counter("pawl_scores", "Feedback with a score, by the arm that it is about", by)
        self._points = counter("pawl_score_points", "Sum of those scores, each 0 to 1", by)
        self._squares = counter("pawl_score_squares", "Sum of their squares, for standard errors", by)
        self.dropped = counter("pawl_shadows_dropped", "Shadow calls given up for want of room", ("agent",))
        self._fallbacks = counter("pawl_cloud_fallbacks", "Answers a cloud gave for a local arm", ("agent",))
        self._fallback_share = gauge(
            "pawl_cloud_fallback_share", "Share of them among the latest 1,000 answers, 0 to 1", ("agent",)
        )
        self.fallback_alerts = counter(
            "pawl_cloud_fallback_alerts", "Times that share passed a bound", ("agent", "bound")
        )
        self._blocks = counter("pawl_privacy_blocks", "Upstreams ruled out by privacy", ("agent", "mode"))
        self._retries = counter("pawl_retries", "Calls tried again", ("upstream",))
        self._refused = counter(
            "pawl_refused",
            "Requests refused at the door: by a limit of the key or agent, too many open requests, or a control "
            "database that does not answer",
            ("limit",),
        )
        self._turned_away = counter(
            "pawl_unauthorised", "Requests without a valid key, or of a wrong role", ("status",)
        )
        self._breakers = gauge("pawl_breaker", "0 closed, 1 half open, 2 open", ("arm",))
        self._trips = counter("pawl_breaker_trips", "Times a closed breaker opened", ("arm",))
        self._inside = gauge("pawl_upstream_in_flight", "Calls under way", ("upstream",))
        self._waiting = gauge("pawl_upstream_waiting", "Calls in the queue", ("upstream",))
        self._arms = gauge("pawl_arm", "1 for every arm that was called, by its kind: local, cloud", ("arm", "kind"))
        self._arm_start = gauge(
            "pawl_arm_first_call_seconds", "An arm's first whole call since this gateway started", ("arm",)
        )
        self.start = gauge("pawl_gateway_start_seconds", "From the process's start until it could answer")
        self._series: dict[tuple[str, str, str, str], _Series] = {}
        self._of_agents: dict[str, _Requests] = {}
        self._scores: dict[tuple[str, str, str, str], _Scores] = {}
        self._known_trips: dict[str, int] = {}
        self._called: set[str] = set()
        self._cloud_arms: set[str] = set()
        self._compared: dict[str, str] = {}  # agent -> the arm of the cloud that it is compared with
        self._began: set[str] = set()

    def also(self, collector: Collector) -> None:
        """Something more that tells its own series."""
        self._registry.register(collector)

    def know(self, fleet: FleetSpec) -> None:
        """Take in what the fleet says of its costs, and of its arms before any of them is called: scores come late, and
        about arms that only an earlier process has called."""
        names = {name: u.model or name for name, u in fleet.upstreams.items() if u.kind == "cloud"}
        self._cloud_arms |= set(names.values())
        self._compared = {a.name: names[c] for a in fleet.agents if (c := cloud_of(fleet, a.name)) is not None}
        if not unpriced(fleet):
            outlay, by_token = paid(fleet)
            hourly = outlay.usd_per_month / HOURS_A_MONTH if outlay is not None else 0.0
            self._outlay.labels("paid" if by_token else "included").set(hourly)

    def expect(self, agent: str, arms: Collection[Arm]) -> None:
        """Tell an agent's series from 0 on: a rate over the first of something needs the 0 before it."""
        self._requests_of(agent)
        for arm in arms:
            self._calls_to((agent, arm.name, arm.kind, "answer"))
            self._scores_of((agent, arm.name, self._kind_of(arm.name, arm.kind), "outcome"))
        self._generated.labels(agent)
        self._fallbacks.labels(agent)
        self._all_cloud.labels(agent)

    def ended(self, agent: str, outcome: str, seconds: float) -> None:
        """A client's request ended."""
        series = self._requests_of(agent)
        series.outcomes[outcome].inc()
        if outcome == "ok":
            series.seconds.observe(seconds)

    def count(self, record: Record, arm: str | None = None) -> None:
        """Take one record in. `arm`: of feedback, the arm that it is about, where that is known."""
        if isinstance(record, Feedback):
            self._take_feedback(record, arm)
            return
        if record.arm not in self._called:
            self._called.add(record.arm)
            self._arms.labels(record.arm, record.arm_kind).set(1)
            self._kind_of(record.arm, record.arm_kind)
        series = self._calls_to((record.agent, record.arm, record.arm_kind, record.role))
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
        if succeeded(record):
            self._take_success(record)

    def _take_success(self, record: Interaction) -> None:
        if record.arm not in self._began:
            self._began.add(record.arm)
            self._arm_start.labels(record.arm).set(record.latency_s)
        count = self._tests.get(record.agent)
        if count is not None and record.role == "answer":
            self._generated.labels(record.agent).inc(count(record.completion))
        cloud = self._clouds.get(record.agent)
        if cloud is not None and record.role == "answer":
            own = record.arm_kind == "cloud" and record.arm == self._compared.get(record.agent, cloud.model)
            usd = record.cost_usd if own else price(cloud, record.prompt_tokens, record.completion_tokens)
            self._all_cloud.labels(record.agent).inc(usd)

    def _take_feedback(self, record: Feedback, arm: str | None) -> None:
        self._feedback.labels(record.agent, record.kind).inc()
        if record.score is None or arm is None:
            return
        series = self._scores_of((record.agent, arm, self._kind_of(arm), record.kind))
        series.amount.inc()
        series.points.inc(record.score)
        series.squares.inc(record.score**2)

    def blocked(self, agent: str, mode: str) -> None:
        """Privacy ruled an upstream out."""
        self._blocks.labels(agent, mode).inc()

    def retried(self, upstream: str) -> None:
        """A call is tried again."""
        self._retries.labels(upstream).inc()

    def refused(self, limit: str) -> None:
        """A request was refused by a limit."""
        self._refused.labels(limit).inc()

    def turned_away(self, status: int) -> None:
        """A request had no valid key (401), or one that may not do this (403)."""
        self._turned_away.labels(str(status)).inc()

    def text(self, routes: Mapping[str, Route], fallbacks: Mapping[str, float], book: LoadBook, now: float) -> bytes:
        """The exposition. `fallbacks`: share of cloud fallback by agent; `now`: the monotonic clock's."""
        for agent, route in routes.items():
            self.expect(agent, [arm for arm in (route.champion, route.challenger) if arm is not None])
        for agent, share in fallbacks.items():
            self._fallback_share.labels(agent).set(share)
        for name, arm in book.known().items():
            self._breakers.labels(name).set(_BREAKER[arm.breaker.state(now)])
            self._trips.labels(name).inc(arm.breaker.trips - self._known_trips.get(name, 0))
            self._known_trips[name] = arm.breaker.trips
        for name, gate in book.turnstiles.items():
            self._inside.labels(name).set(gate.inside)
            self._waiting.labels(name).set(gate.waiting)
        return generate_latest(self._registry)

    def _kind_of(self, arm: str, said: str = "") -> str:
        """local or cloud. What is no cloud of the fleet, and was never seen as one, is an adapter or the base model."""
        if said == "cloud":
            self._cloud_arms.add(arm)
        return "cloud" if arm in self._cloud_arms else "local"

    def _calls_to(self, at: tuple[str, str, str, str]) -> _Series:
        found = self._series.get(at)
        if found is None:
            found = self._series[at] = _Series(
                self._calls.labels(*at, "ok"),
                self._calls.labels(*at, "error"),
                self._tokens.labels(*at, "prompt"),
                self._tokens.labels(*at, "completion"),
                self._tokens.labels(*at, "cached"),
                self._cost.labels(*at),
                self._latency.labels(*at),
                self._first.labels(*at),
            )
        return found

    def _requests_of(self, agent: str) -> _Requests:
        found = self._of_agents.get(agent)
        if found is None:
            outcomes = {outcome: self._requests.labels(agent, outcome) for outcome in OUTCOMES}
            found = self._of_agents[agent] = _Requests(outcomes, self._request_seconds.labels(agent))
        return found

    def _scores_of(self, at: tuple[str, str, str, str]) -> _Scores:
        found = self._scores.get(at)
        if found is None:
            series = (self._amount, self._points, self._squares)
            found = self._scores[at] = _Scores(*(s.labels(*at) for s in series))
        return found


def is_cloud_fallback(record: Interaction) -> bool:
    """Whether a cloud answered because an arm before it did not (pure)."""
    return record.fallback and record.arm_kind == "cloud" and record.role == "answer" and record.error is None
