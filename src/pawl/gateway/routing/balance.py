"""Which replica answers a request, and when one that fails is left out (pure of clocks and of connections).

A session stays with one replica, whose prefix cache knows its conversation: the highest of the hashes of (session,
replica), so a lost replica moves only its own sessions (Thaler and Ravishankar 1998, rendezvous hashing). It is left
for the least busy one only where it is clearly busier.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

CROWDED = 4  # requests under way before a session is moved at all
_TIMES = 1.5  # and so many times those of the least busy replica
_ROW = 3  # failures in a row that leave a replica out
_REST_S = 5.0


def rank(session: str, replica: str) -> int:
    """How much a session prefers a replica; the same everywhere."""
    return int.from_bytes(hashlib.blake2b(f"{session}\0{replica}".encode(), digest_size=8).digest(), "big")


def choose(session: str, outstanding: Mapping[str, int]) -> str:
    """The replica for a session, of those that may answer it (at least one), with the requests under way at each."""
    favourite = max(outstanding, key=lambda replica: rank(session, replica))
    if outstanding[favourite] > CROWDED:
        least = min(outstanding, key=lambda replica: (outstanding[replica], -rank(session, replica)))
        if outstanding[favourite] > _TIMES * outstanding[least]:
            return least
    return favourite


class Standing:
    """How a replica does, as seen from this gateway; apart from the breakers of arms, which it never touches.

    `now` and `looked_at` are of one monotonic clock in seconds.
    """

    def __init__(self) -> None:
        self.outstanding = 0
        self.ejections = 0
        self.why = ""
        self._row = 0
        self._out_at: float | None = None
        self._rest_s = 0.0
        self._probed_at: float | None = None

    @property
    def out(self) -> bool:
        """Whether it is left out."""
        return self._out_at is not None

    def admits(self, now: float, looked_at: float | None) -> bool:
        """Whether requests may be sent to it. `looked_at`: when the latest look that found it sound began; None: it was
        not found sound, or nobody looks, and then one request at a time finds out after a rest."""
        if self._out_at is None:
            return True
        if now - self._out_at < self._rest_s:
            return False
        if looked_at is not None:
            if looked_at > self._out_at:
                self._return()
                return True
            return False
        return now - self._out_at >= _REST_S and (self._probed_at is None or now - self._probed_at >= _REST_S)

    def begins(self, now: float) -> None:
        """A request is sent to it."""
        self.outstanding += 1
        if self._out_at is not None:
            self._probed_at = now

    def ends(self) -> None:
        """That request is over, however."""
        self.outstanding -= 1

    def answered(self) -> None:
        """It gave an answer."""
        self._row = 0
        if self._out_at is not None:
            self._return()

    def failed(self, now: float, why: str, *, reached: bool) -> None:
        """It gave none. One that could not be reached is left out at once, until a look finds it again; one that was
        reached after a row of failures, and for a rest."""
        self._row += 1
        if reached and self._row < _ROW and self._out_at is None:
            return
        if self._out_at is None:
            self.ejections += 1
        self._out_at, self._probed_at, self.why = now, None, why
        self._rest_s = _REST_S if reached else 0.0

    def _return(self) -> None:
        self._out_at = self._probed_at = None
        self._row, self.why = 0, ""
