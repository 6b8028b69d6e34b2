"""One upstream on several servers: each request to one that holds its model; where that one fails, to another.

What reached no server may go to all the others. What was sent and got no answer, or one that says the server is
broken, goes to one other at most: a request that breaks what it is sent to must not break them all. A stream that
began to arrive stays where it is.
"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from typing import Protocol

from pawl.gateway.routing.balance import Standing, choose
from pawl.gateway.upstreams.sender import Head, NotReached, Sender

_ELSEWHERE = (404, 500, 502, 503)  # 404: it does not hold the model


class Look(Protocol):
    """A replica as its reconciler last saw it."""

    @property
    def up(self) -> bool: ...
    @property
    def ready(self) -> frozenset[str]:
        """The model names that may be asked there."""
        ...

    @property
    def began(self) -> float:
        """When the look began, by the monotonic clock."""
        ...


class Balanced:
    """The servers of one upstream, by base URL."""

    def __init__(
        self,
        bases: Callable[[], Sequence[str]],
        open_sender: Callable[[str], Sender],
        look: Callable[[str], Look | None],
    ) -> None:
        """`bases`: where its servers are now; they may come and go. `look`: the latest look at one, by its base URL;
        None where nobody looks, or has not yet."""
        self._bases, self._open, self._look = bases, open_sender, look
        self._senders: dict[str, Sender] = {}
        self.standings: dict[str, Standing] = {}
        self.moved = 0  # requests that another server answered after one failed
        self._follow()

    def towards(self, session: str, model: str) -> Sender:
        """A sender for one request of that session to that model."""
        return _Request(self, session, model)

    def pick(self, session: str, model: str, tried: set[str]) -> str | None:
        """The server to try; None where those that could answer were tried.

        Where none is known to be able to, the first try goes to one that might: to be wrong about a server must not
        cost an answer.
        """
        self._follow()
        now = time.monotonic()
        able: dict[str, int] = {}
        unsure: dict[str, int] = {}
        resting: dict[str, int] = {}
        for base, standing in self.standings.items():
            if base in tried:
                continue
            look = self._look(base)
            if not standing.admits(now, look.began if look is not None and look.up else None):
                resting[base] = standing.outstanding
            elif look is None or model in look.ready:
                able[base] = standing.outstanding
            else:
                unsure[base] = standing.outstanding
        pool = able if tried else able or unsure or resting
        return choose(session, pool) if pool else None

    def sender(self, base: str) -> Sender:
        """The sender to one server."""
        return self._senders[base]

    def standing(self, base: str) -> Standing:
        """How one does; of one that went, nobody remembers."""
        return self.standings.get(base) or Standing()

    def _follow(self) -> None:
        """Servers that came are asked from now on; of those that went, what is under way ends by itself."""
        bases = self._bases()
        if len(bases) == len(self.standings) and all(base in self.standings for base in bases):
            return
        for base in bases:
            if base not in self._senders:
                self._senders[base] = self._open(base)
        self.standings = {base: self.standings.get(base) or Standing() for base in bases}

    async def close(self) -> None:
        """Close all connections."""
        for sender in self._senders.values():
            await sender.close()


class _Request:
    """One request on its way; a `Sender` of its own."""

    def __init__(self, balanced: Balanced, session: str, model: str) -> None:
        self._b, self._session, self._model = balanced, session, model
        self._tried: set[str] = set()
        self._sent = 0  # how often it reached a server

    async def whole(self, path: str, data: bytes, key: str | None) -> Head:
        base = self._first()
        while True:
            standing = self._b.standing(base)
            standing.begins(time.monotonic())
            try:
                head = await self._b.sender(base).whole(path, data, key)
            except OSError as e:
                other = self._after(base, e)
                if other is None:
                    raise
            else:
                other = self._after(base, head)
                if other is None:
                    return head
            finally:
                standing.ends()
            base = other

    async def streamed(self, path: str, data: bytes, key: str | None) -> AsyncGenerator[Head | bytes, None]:
        base = self._first()
        while True:
            standing, other = self._b.standing(base), None
            head, begun = None, False
            standing.begins(time.monotonic())
            try:
                async with aclosing(self._b.sender(base).streamed(path, data, key)) as pieces:
                    async for piece in pieces:
                        if not isinstance(piece, Head):
                            if not begun:
                                begun = True
                                assert head is not None
                                yield head  # only now: until something of it is there, another may answer
                            yield piece
                        elif piece.status == 200:
                            head = piece
                        else:
                            other = self._after(base, piece)
                            if other is None:
                                yield piece
                            break
                    else:
                        standing.answered()
            except OSError as e:
                other = None if begun else self._after(base, e)
                if begun:
                    standing.failed(time.monotonic(), str(e), reached=True)
                if other is None:
                    raise
            finally:
                standing.ends()
            if other is None:
                return
            base = other

    async def close(self) -> None:
        """Connections are the servers'."""

    def _first(self) -> str:
        base = self._b.pick(self._session, self._model, self._tried)
        if base is None:
            raise NotReached("none of its servers is there")
        return base

    def _after(self, base: str, what: Head | OSError) -> str | None:
        """Note what a server did; the next to try, None where this is the answer."""
        standing, now = self._b.standing(base), time.monotonic()
        reached = not isinstance(what, NotReached)
        self._sent += reached
        if isinstance(what, Head):
            if what.status >= 500:
                standing.failed(now, f"answered {what.status}", reached=True)
            else:
                standing.answered()
            again = what.status in _ELSEWHERE
        else:
            standing.failed(now, str(what) or type(what).__name__, reached=reached)
            again = not reached or not isinstance(what, TimeoutError)  # who waited so long has no time left
        self._tried.add(base)
        if not again or self._sent > 1:
            return None
        other = self._b.pick(self._session, self._model, self._tried)
        self._b.moved += other is not None
        return other
