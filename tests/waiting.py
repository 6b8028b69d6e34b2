"""Waiting for what happens elsewhere, and how long it took, on machines that stand still now and then."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TypeVar

_NAP_S = 0.01
_LATE_S = 0.03  # a nap that takes so much longer shows that nothing ran meanwhile
Seen = TypeVar("Seen")


def until(found: Callable[[], Seen], seconds: float = 10, every: float = 0.05) -> Seen:
    """What `found` gives once that is true. AssertionError after `seconds`, in which the machine was running."""
    with Took() as took:
        while not (seen := found()):
            assert took.seconds < seconds, "it did not happen in time"
            time.sleep(every)
    return seen


class Took:
    """The seconds since it was entered, without those in which this machine stood still.

    A thread that only naps tells: what its naps take too long is time in which nobody else ran either. What a server
    takes because it has much to do counts.
    """

    def __enter__(self) -> Took:
        self._over = threading.Event()
        self._stood_still = self._ended = 0.0
        self._began = self._napping_since = time.monotonic()
        threading.Thread(target=self._nap, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended = self.seconds
        self._over.set()

    @property
    def seconds(self) -> float:
        """So far, or in all once it is over."""
        if self._over.is_set():
            return self._ended
        now = time.monotonic()
        late = max(0.0, now - self._napping_since - _NAP_S - _LATE_S)
        return now - self._began - self._stood_still - late

    def _nap(self) -> None:
        while not self._over.is_set():
            time.sleep(_NAP_S)
            now = time.monotonic()
            self._stood_still += max(0.0, now - self._napping_since - _NAP_S - _LATE_S)
            self._napping_since = now
