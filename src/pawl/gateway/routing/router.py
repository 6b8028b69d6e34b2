"""Puts the fleet's rules and the present load together into the order of arms for one request."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal

import msgspec

from pawl.fleet.limits import Privacy
from pawl.fleet.routing import RoutingSpec, Strategy
from pawl.fleet.upstream import UpstreamSpec
from pawl.gateway.routing.complexity import Features
from pawl.gateway.routing.load import LoadBook
from pawl.gateway.routing.policy import Candidate, Choice, order
from pawl.monitoring.economics import price
from pawl.rollout.route import Arm, Route, choose

_USUAL_ANSWER = 300  # tokens of an answer where the client names no bound; for comparing prices
Bar = Literal["privacy", "capability", "breaker", "queue"]


class Barred(msgspec.Struct, frozen=True):
    """An arm that may not be called for this request."""

    arm: Arm
    kind: Bar
    why: str
    retry_after_s: float = 0.0


class Plan(msgspec.Struct, frozen=True):
    """The arms to try, and those that were ruled out."""

    choices: list[Choice]
    barred: list[Barred]


class Router:
    """Builds the plan of each request; holds no state but the load book's."""

    def __init__(
        self,
        upstreams: Mapping[str, UpstreamSpec],
        rules: Mapping[str, RoutingSpec],
        book: LoadBook,
        reach: Mapping[Privacy, frozenset[str]],
        arm_of: Callable[[str], Arm],
        clock: Callable[[], float],
    ) -> None:
        self._upstreams, self._rules, self._book = upstreams, rules, book
        self._reach, self._clock = reach, clock
        self._arms = {name: arm_of(name) for name in upstreams}

    def reach(self, privacy: Privacy) -> frozenset[str]:
        """The upstreams that mode may reach."""
        return self._reach[privacy]

    def plan(
        self, route: Route, session: str, looks: Features, complexity: str, strategy: Strategy, privacy: Privacy
    ) -> Plan:
        """Who could answer this request, best first."""
        rules = self._rules[route.agent]
        good, behind = self._arms_of(rules, route, session, complexity)
        barred: list[Barred] = []
        weigh = len(good) > 1
        candidates = [self._candidate(a, w, rules, looks, privacy, barred, weigh) for a, w in good]
        fallback = [self._candidate(a, w, rules, looks, privacy, barred, False) for a, w in behind]
        return Plan(order(strategy, candidates, fallback), barred)

    def _arms_of(
        self, rules: RoutingSpec, route: Route, session: str, complexity: str
    ) -> tuple[list[tuple[Arm, str]], list[tuple[Arm, str]]]:
        """(good enough for this complexity, to fall back on), each with what it is to the agent."""
        own = choose(route, session)
        tried = route.challenger is not None and own.name == route.challenger.name
        self._book.arm(own).breaker.cautious = tried and route.cautious
        mine = (own, f"challenger at {route.percent} %" if tried else "champion")
        names = rules.tiers.get(complexity)  # type: ignore[call-overload]
        good = [mine]
        if names:
            good = [mine if n == own.upstream else (self._arms[n], f"{n} for {complexity} requests") for n in names]
        behind: list[tuple[Arm, str]] = []
        if tried:  # a challenger that fails costs no client an answer
            behind.append((route.champion, "champion"))
        if rules.cascade is not None:
            behind.append((self._arms[rules.cascade.upstream], rules.cascade.upstream))
        if rules.fallback is not None:
            behind += [(self._arms[n], n) for n in rules.fallback]
        elif own.kind == "local":
            behind += [(a, a.upstream) for a in route.shadows if a.kind == "cloud" and a.upstream in self._arms][:1]
        return good, behind

    def _candidate(
        self,
        arm: Arm,
        why: str,
        routing: RoutingSpec,
        looks: Features,
        privacy: Privacy,
        barred: list[Barred],
        weigh: bool,
    ) -> Candidate:
        spec = self._upstreams[arm.upstream]
        bar = self._bar(arm, spec, looks, privacy)
        if bar is not None:
            barred.append(bar)
            return Candidate(arm, why, barred=bar.why)
        weak = None
        load = self._book.arm(arm)
        if routing.quality_floor is not None:
            mean = load.mean_score(routing.quality_window, self._clock())
            if mean is not None and mean < routing.quality_floor:
                weak = f"scored {mean:.2f} lately, under the floor of {routing.quality_floor:g}"
        if not weigh:
            return Candidate(arm, why, weak=weak)
        mean = load.mean_score(routing.quality_window, self._clock())
        return Candidate(
            arm,
            why,
            cost_usd=price(spec, looks.prompt_tokens, looks.wanted_tokens or _USUAL_ANSWER),
            latency_s=self._book.expected_latency_s(arm),
            quality=spec.quality if mean is None else mean,
            weak=weak,
        )

    def _bar(self, arm: Arm, spec: UpstreamSpec, looks: Features, privacy: Privacy) -> Barred | None:
        if arm.upstream not in self._reach[privacy]:
            return Barred(arm, "privacy", f"is outside privacy mode {privacy}")
        lacking = lacks(spec, looks)
        if lacking:
            return Barred(arm, "capability", lacking)
        now = self._clock()
        breaker = self._book.arm(arm).breaker
        if not breaker.admits(now):
            return Barred(arm, "breaker", f"rests after {breaker.why}", breaker.retry_after(now))
        if self._book.turnstiles[arm.upstream].full:
            return Barred(arm, "queue", "has a full queue", 1.0)
        return None


def lacks(spec: UpstreamSpec, looks: Features) -> str | None:
    """What a request needs and an upstream cannot do; None where it can (pure)."""
    if looks.images and not spec.images:
        return "takes no images"
    if looks.tools and not spec.tools:
        return "takes no tools"
    if looks.json_schema and not spec.json_schema:
        return "takes no JSON schema"
    if looks.logprobs and not spec.logprobs:
        return "gives no logprobs"
    # Tokens are estimated from characters: only what exceeds twice the context surely does.
    if spec.context_tokens is not None and looks.prompt_tokens > 2 * spec.context_tokens:
        return f"holds {spec.context_tokens} tokens, the prompt is about {looks.prompt_tokens}"
    return None
