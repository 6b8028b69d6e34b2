"""A circuit breaker: calls to an arm that keeps failing or crawling pause, and one probe at a time tries again.

Nygard, Release It! (2nd ed.), chapter 5. Time is an argument, so that its decisions are pure of clocks.
"""

from __future__ import annotations

from collections import deque
from typing import Literal

from pawl.fleet.upstream import BreakerSpec

State = Literal["closed", "open", "half_open"]


class Breaker:
    """State of one arm. `now` is any monotonic clock in seconds."""

    def __init__(self, spec: BreakerSpec) -> None:
        self._spec = spec
        self._latest: deque[tuple[bool, bool]] = deque(maxlen=spec.window)  # (failed, slow)
        self._failed = self._slow = self._row = 0
        self._until: float | None = None  # while it is not closed: when the next probe may begin
        self._probing: float | None = None
        self.why = ""
        self.trips = 0  # how often it opened while it was closed
        self.cautious = False  # it opens at half of its limits

    def state(self, now: float) -> State:
        """What it is now; it half-opens by time alone."""
        if self._until is None:
            return "closed"
        return "half_open" if now >= self._until else "open"

    def admits(self, now: float) -> bool:
        """Whether a call may begin. Half open: only where no other probe is under way."""
        if self._until is None:
            return True
        if now < self._until:
            return False
        # A probe that never came back must not keep it shut for ever.
        return self._probing is None or now - self._probing >= self._spec.open_s

    def begin(self, now: float) -> None:
        """A call begins; half open, it is the probe."""
        if self._until is not None:
            self._probing = now

    def retry_after(self, now: float) -> float:
        """Seconds until the next probe."""
        return 0.0 if self._until is None else max(0.0, self._until - now)

    def succeeded(self, now: float, took: float) -> None:
        """A call gave an answer after `took` seconds."""
        slow = took > self._spec.slow_s
        if self._until is not None:
            if slow:
                self._open(now, f"its probe took {took:.1f} s")
            else:
                self._close()
            return
        self._row = 0
        self._note(failed=False, slow=slow)
        if self._counted and self._slow / len(self._latest) >= self._spec.slow_rate * self._share:
            share = f"{self._slow} of {len(self._latest)}"
            self._open(now, f"{share} calls took longer than {self._spec.slow_s:g} s")

    def failed(self, now: float) -> None:
        """A call gave none."""
        if self._until is not None:
            self._open(now, "its probe failed")
            return
        self._row += 1
        self._note(failed=True, slow=False)
        if self._row >= max(1, int(self._spec.consecutive * self._share)):
            self._open(now, f"{self._row} failures in a row")
        elif self._counted and self._failed / len(self._latest) >= self._spec.error_rate * self._share:
            self._open(now, f"{self._failed} of {len(self._latest)} calls failed")

    def forget(self) -> None:
        """A call ended by nobody's fault (its client went away): no evidence, but the probe is free again."""
        self._probing = None

    @property
    def _share(self) -> float:
        return 0.5 if self.cautious else 1.0

    @property
    def _counted(self) -> bool:
        return len(self._latest) >= self._spec.min_calls

    def _note(self, *, failed: bool, slow: bool) -> None:
        if len(self._latest) == self._latest.maxlen:
            was_failed, was_slow = self._latest[0]
            self._failed -= was_failed
            self._slow -= was_slow
        self._latest.append((failed, slow))
        self._failed += failed
        self._slow += slow

    def _open(self, now: float, why: str) -> None:
        self.trips += self._until is None
        self._until, self._probing, self.why = now + self._spec.open_s, None, why

    def _close(self) -> None:
        self._until = self._probing = None
        self._latest.clear()
        self._failed = self._slow = self._row = 0
        self.why = ""
