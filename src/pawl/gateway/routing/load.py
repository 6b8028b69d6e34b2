"""What each arm and upstream is going through now: breakers, queues, latencies, scores."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Mapping

from pawl.fleet.upstream import UpstreamSpec
from pawl.gateway.routing.breaker import Breaker
from pawl.rollout.route import Arm

_WEIGHT = 0.2  # of the newest call in the moving average of latencies
_MEANT = 10  # scores before their mean says more than the spec's expectation
_SCORES_HOLD_S = 900.0  # an arm that got no traffic for its low score is tried again after this


class QueueFull(Exception):
    """Too many calls wait for this upstream already."""


class Turnstile:
    """At most `most` calls of one upstream at once; `room` more wait, first come first served."""

    def __init__(self, most: int, room: int) -> None:
        self._most, self._room = most, room
        self._waiting: deque[asyncio.Future[None]] = deque()
        self.inside = 0

    @property
    def waiting(self) -> int:
        """Calls in the queue."""
        return len(self._waiting)

    @property
    def full(self) -> bool:
        """Whether another call would be refused."""
        return self.inside >= self._most and len(self._waiting) >= self._room

    async def enter(self) -> None:
        """Wait for a turn. QueueFull where the queue has no room."""
        if self.inside < self._most:
            self.inside += 1
            return
        if self.full:
            raise QueueFull
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.leave()  # the turn came in the same moment: it goes to the next
            else:
                with contextlib.suppress(ValueError):  # `leave` has passed over it already
                    self._waiting.remove(turn)
            raise

    def leave(self) -> None:
        """The call has ended; its turn goes to the longest waiting."""
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        self.inside -= 1


class ArmLoad:
    """One arm: a model on an upstream."""

    def __init__(self, spec: UpstreamSpec) -> None:
        self.breaker = Breaker(spec.breaker)
        self.latency_s = 0.0
        self._scores: deque[tuple[float, float]] = deque(maxlen=200)  # (when, score)

    def took(self, seconds: float) -> None:
        """A call ended well after so long."""
        self.latency_s += _WEIGHT * (seconds - self.latency_s) if self.latency_s else seconds

    def scored(self, score: float, now: float) -> None:
        """Feedback gave one of its answers a score, 0..1."""
        self._scores.append((now, score))

    def mean_score(self, window: int, now: float) -> float | None:
        """Mean of the latest `window` scores; None before there are enough to mean something."""
        while self._scores and now - self._scores[0][0] > _SCORES_HOLD_S:
            self._scores.popleft()
        if len(self._scores) < min(_MEANT, window):
            return None
        latest = list(self._scores)[-window:]
        return sum(score for _, score in latest) / len(latest)


class LoadBook:
    """All arms and upstreams of one gateway."""

    def __init__(self, upstreams: Mapping[str, UpstreamSpec]) -> None:
        self._upstreams = upstreams
        self.turnstiles = {n: Turnstile(u.max_in_flight, u.max_waiting) for n, u in upstreams.items()}
        self._arms: dict[str, ArmLoad] = {}

    def arm(self, arm: Arm) -> ArmLoad:
        """The state of an arm; arm names are unique in a fleet."""
        found = self._arms.get(arm.name)
        if found is None:
            found = self._arms[arm.name] = ArmLoad(self._upstreams[arm.upstream])
        return found

    def known(self) -> Mapping[str, ArmLoad]:
        """Every arm that was ever looked at, by name."""
        return self._arms

    def expected_latency_s(self, arm: Arm) -> float:
        """The moving average, stretched by the queue before it."""
        gate = self.turnstiles[arm.upstream]
        most = self._upstreams[arm.upstream].max_in_flight
        return self.arm(arm).latency_s * (1 + (gate.inside + gate.waiting) / most)
