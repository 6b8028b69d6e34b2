"""Many timers of one length at the price of one: requests start and stop them thousands of times a second."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any


class Deadlines:
    """Calls back when something took `after_s` seconds, up to a quarter of that (at most 50 ms) late.

    All have the same length, so the oldest is always the next: one timer of the loop serves for all of them.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, after_s: float) -> None:
        self._loop, self._after_s = loop, after_s
        self._step_s = min(0.05, after_s / 4)
        self._active: dict[Any, tuple[float, Callable[[], None]]] = {}
        self._ticking = False

    def start(self, key: Any, late: Callable[[], None]) -> None:
        """Begin one; a key has one at a time."""
        self._active[key] = (self._loop.time() + self._after_s, late)
        if not self._ticking:
            self._ticking = True
            self._loop.call_later(self._step_s, self._tick)

    def stop(self, key: Any) -> None:
        """It was in time, or is no longer waited for."""
        self._active.pop(key, None)

    def _tick(self) -> None:
        now = self._loop.time()
        while self._active:
            key = next(iter(self._active))
            when, late = self._active[key]
            if when > now:
                break
            del self._active[key]
            late()
        self._ticking = bool(self._active)
        if self._ticking:
            self._loop.call_later(self._step_s, self._tick)
