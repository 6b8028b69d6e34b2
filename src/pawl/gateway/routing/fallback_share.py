"""How often clouds answer for local arms lately, and the moments at which that passes a bound."""

from __future__ import annotations

from collections import deque

LATEST = 1000  # answers
ENOUGH = 100  # answers before a share means anything


class FallbackShare:
    """Of one agent. A bound alerts again only after the share has fallen under it."""

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self._bounds = bounds
        self._latest: deque[bool] = deque(maxlen=LATEST)
        self._count = 0
        self._above: set[float] = set()

    @property
    def share(self) -> float:
        """Among the latest answers; 0 before the first."""
        return self._count / len(self._latest) if self._latest else 0.0

    def note(self, fallback: bool) -> list[float]:
        """One more answer; the bounds that the share passes by it, upwards."""
        if len(self._latest) == LATEST:
            self._count -= self._latest[0]
        self._latest.append(fallback)
        self._count += fallback
        if len(self._latest) < ENOUGH:
            return []
        above = {b for b in self._bounds if self.share > b}
        passed = sorted(above - self._above)
        self._above = above
        return passed
