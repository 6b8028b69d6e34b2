"""The port through which requests leave: POST a JSON body, get an answer whole or in pieces."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import NamedTuple, Protocol


class Head(NamedTuple):
    """The begin of an answer. `body` holds all of it, but for a streamed one with status 200."""

    status: int
    retry_after: str
    body: bytes


class NotReached(OSError):
    """No connection came about: nothing was sent."""


class NotReachedInTime(NotReached, TimeoutError):
    """As `NotReached`, by waiting for too long."""


class Sender(Protocol):
    """One upstream. Both raise OSError where it is not reached (then NotReached) or breaks off, TimeoutError where it
    takes too long."""

    async def whole(self, path: str, data: bytes, key: str | None) -> Head:
        """All of an answer."""
        ...

    def streamed(self, path: str, data: bytes, key: str | None) -> AsyncGenerator[Head | bytes, None]:
        """First a Head, then the pieces of the body. Close it (`aclosing`) where it is not read to its end."""
        ...

    async def close(self) -> None:
        """Close its connections."""
        ...
