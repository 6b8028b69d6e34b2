"""Sends over plain HTTP/1.1 to upstreams nearby: pooled connections, one write a request, parsed by httptools.

A call through aiohttp costs about 110 µs of processor time, more than all the rest of the gateway; this one costs a
quarter of it (docs/benchmarks/gateway.md). It does what a POST to an inference server needs and nothing else: no TLS,
no redirects, no proxies, no compression. Upstreams on https go through aiohttp, where their own latency hides it.
Source: RFC 9112 (HTTP/1.1); the parser is llhttp's.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator
from typing import cast
from urllib.parse import urlsplit

import httptools

from pawl.fleet.upstream import UpstreamSpec
from pawl.gateway.deadlines import Deadlines
from pawl.gateway.upstreams.sender import Head, NotReached, NotReachedInTime

_KEEP_S = 20.0  # an idle connection is not trusted for longer: servers close theirs after some time
_BUFFER = 1 << 18  # bytes of a stream that may wait for a slow reader; then the upstream is held back
_MOST_BODY = 64 << 20


class ConnectionBroke(OSError):
    """The upstream closed the connection before its answer was whole."""


class _Connection(asyncio.Protocol):
    """One connection; one request at a time."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._answer: asyncio.Future[None] | None = None  # headers of a stream, or the whole of another answer
        self._part: asyncio.Future[None] | None = None
        self._parts: deque[bytes] = deque()
        self._size = 0
        self._paused = self._streamed = self._whole = self._keep = self._began = False
        self._headed = self._bounded = False  # the answer's headers came; they say where its body ends
        self._broken: Exception | None = None
        self.idle_since = 0.0
        self.kept = False  # it served a request before
        self.retry_after = ""

    # -- one request

    def ask(self, data: bytes, *, streamed: bool) -> asyncio.Future[None]:
        """Send a request; done when its headers (streamed) or all of its answer are there."""
        assert self._transport is not None
        self._parser = httptools.HttpResponseParser(self)
        self._answer = self._loop.create_future()
        self._parts.clear()
        self._size = 0
        self._streamed = streamed
        self._whole = self._keep = self._began = self._headed = self._bounded = False
        self.retry_after = ""
        self._transport.write(data)
        return self._answer

    @property
    def status(self) -> int:
        """Of the answer."""
        return int(self._parser.get_status_code())

    @property
    def began(self) -> bool:
        """Whether anything of the answer came."""
        return self._began

    @property
    def open(self) -> bool:
        """Whether another request may be sent."""
        return self._broken is None and self._transport is not None and not self._transport.is_closing()

    def body(self) -> bytes:
        """All of it."""
        return self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)

    async def next_part(self, within: Deadlines) -> bytes | None:
        """The next piece of a stream; None at its end. ConnectionBroke, TimeoutError."""
        if not self._parts:
            if self._whole:
                return None
            if self._broken is not None:
                raise self._broken
            self._part = self._loop.create_future()
            within.start(self, self.time_out)
            try:
                await self._part
            finally:
                within.stop(self)
                self._part = None
            if not self._parts:
                return None
        data = b"".join(self._parts)
        self._parts.clear()
        self._size = 0
        if self._paused and self._transport is not None:
            self._paused = False
            self._transport.resume_reading()
        return data

    def time_out(self) -> None:
        """It took too long."""
        self.abort(TimeoutError())

    def abort(self, why: Exception) -> None:
        """Close at once; whoever waits gets the reason."""
        self._fail(why)
        if self._transport is not None:
            self._transport.abort()

    @property
    def reusable(self) -> bool:
        """Whether the answer is whole and the connection may be kept."""
        return self._keep and self.open and not self._paused  # one that is held back would never hear an answer

    def _fail(self, why: Exception) -> None:
        self._broken = self._broken or why
        for waiting in (self._answer, self._part):
            if waiting is not None and not waiting.done():
                waiting.set_exception(self._broken)

    # -- asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self._began = True
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as e:
            self.abort(ConnectionBroke(f"the answer is no HTTP: {e}"))

    def eof_received(self) -> None:
        return None

    def connection_lost(self, exc: Exception | None) -> None:
        if exc is None and self._headed and not self._bounded:
            self._end(keep=False)  # RFC 9112, 6.3: a body without a length ends with its connection
        if not self._whole:
            self._fail(ConnectionBroke("the connection was closed"))
        self._broken = self._broken or ConnectionBroke("the connection was closed")

    # -- httptools

    def on_header(self, name: bytes, value: bytes) -> None:
        name = name.lower()
        if name == b"retry-after":
            self.retry_after = value.decode("latin-1")
        elif name in (b"content-length", b"transfer-encoding"):
            self._bounded = True

    def on_headers_complete(self) -> None:
        if self._parser.get_status_code() < 200:
            return  # an interim answer; the real one follows
        self._headed = True
        # Errors are short and read whole, streamed or not.
        self._streamed = self._streamed and self._parser.get_status_code() == 200
        if self._streamed and self._answer is not None and not self._answer.done():
            self._answer.set_result(None)

    def on_body(self, data: bytes) -> None:
        self._parts.append(data)
        self._size += len(data)
        if self._streamed:
            if self._part is not None and not self._part.done():
                self._part.set_result(None)
            if self._size > _BUFFER and not self._paused and self._transport is not None:
                self._paused = True
                self._transport.pause_reading()
        elif self._size > _MOST_BODY:
            self.abort(ConnectionBroke(f"the answer is larger than {_MOST_BODY} bytes"))

    def on_message_complete(self) -> None:
        if self._parser.get_status_code() < 200:
            self._bounded = False
            return
        self._end(keep=bool(self._parser.should_keep_alive()))

    def _end(self, *, keep: bool) -> None:
        self._whole, self._keep = True, keep
        for waiting in (self._answer, self._part):
            if waiting is not None and not waiting.done():
                waiting.set_result(None)


class HttptoolsSender:
    """One upstream at a plain http:// address."""

    def __init__(self, base: str, spec: UpstreamSpec) -> None:
        where = urlsplit(base)
        self._host, self._port, self._prefix = where.hostname or "", where.port or 80, where.path
        self._connect_s = spec.connect_s
        self._named = where.netloc.rpartition("@")[2].encode()
        self._idle: deque[_Connection] = deque()
        self._busy: set[_Connection] = set()
        self.loop = asyncio.get_running_loop()
        self._total = Deadlines(self.loop, spec.timeout_s)
        self._between = Deadlines(self.loop, spec.first_token_s)

    async def whole(self, path: str, data: bytes, key: str | None) -> Head:
        connection = await self._ask(self._request(path, data, key), streamed=False)
        self._total.stop(connection)
        head = Head(connection.status, connection.retry_after, connection.body())
        self._release(connection)
        return head

    async def streamed(self, path: str, data: bytes, key: str | None) -> AsyncGenerator[Head | bytes, None]:
        connection = await self._ask(self._request(path, data, key), streamed=True)
        try:
            if connection.status != 200:
                yield Head(connection.status, connection.retry_after, connection.body())
                return
            yield Head(200, "", b"")
            while (piece := await connection.next_part(self._between)) is not None:
                yield piece
        finally:
            self._total.stop(connection)
            self._release(connection)

    async def close(self) -> None:
        for connection in [*self._idle, *self._busy]:
            connection.abort(ConnectionBroke("the gateway ends"))
        self._idle.clear()

    def _request(self, path: str, data: bytes, key: str | None) -> bytes:
        secret = b"authorization: Bearer %b\r\n" % key.encode() if key else b""
        return (
            b"POST %b HTTP/1.1\r\nhost: %b\r\ncontent-type: application/json\r\naccept-encoding: identity\r\n"
            b"%bcontent-length: %d\r\n\r\n%b" % ((self._prefix + path).encode(), self._named, secret, len(data), data)
        )

    async def _ask(self, data: bytes, *, streamed: bool) -> _Connection:
        """A connection with its answer (streamed: the head of it); its deadline for the whole call runs on."""
        while True:
            connection = self._kept() or await self._connect()
            self._busy.add(connection)
            self._total.start(connection, connection.time_out)
            if streamed:
                self._between.start(connection, connection.time_out)
            try:
                await connection.ask(data, streamed=streamed)
                return connection
            except BaseException as e:
                self._total.stop(connection)
                self._busy.discard(connection)
                connection.abort(ConnectionBroke("given up"))
                # A kept connection that the server closed meanwhile, without a word of an answer, proves nothing.
                if not (isinstance(e, ConnectionBroke) and connection.kept and not connection.began):
                    raise
            finally:
                if streamed:
                    self._between.stop(connection)

    def _kept(self) -> _Connection | None:
        while self._idle:
            connection = self._idle.pop()  # the latest: the others may grow too old and go
            if connection.open and self.loop.time() - connection.idle_since < _KEEP_S:
                connection.kept = True
                return connection
            connection.abort(ConnectionBroke("idle for too long"))
        return None

    async def _connect(self) -> _Connection:
        connecting = self.loop.create_connection(lambda: _Connection(self.loop), self._host, self._port)
        try:
            _, made = await asyncio.wait_for(connecting, self._connect_s)
        except TimeoutError as e:
            raise NotReachedInTime("no connection in time") from e
        except OSError as e:
            raise NotReached(str(e)) from e
        return made

    def _release(self, connection: _Connection) -> None:
        self._busy.discard(connection)
        if connection.reusable:
            connection.idle_since = self.loop.time()
            self._idle.append(connection)
        else:
            connection.abort(ConnectionBroke("given up"))
