"""Both ways to send meet the same servers, over real sockets: well-behaved, slow, half-dead, and talking nonsense."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pawl.fleet.upstream import UpstreamSpec
from pawl.gateway.upstreams.sender import Head, Sender
from pawl.gateway.upstreams.sender_aiohttp import AiohttpSender
from pawl.gateway.upstreams.sender_httptools import HttptoolsSender

Play = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
KINDS: list[Any] = [HttptoolsSender, AiohttpSender]
OK = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 4\r\n\r\nbody"


class Server:
    """Plays a script on each request; counts connections and keeps what was asked."""

    def __init__(self, play: Play) -> None:
        self._play = play
        self.connections = 0
        self.asked: list[bytes] = []
        self.gone = asyncio.Event()

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = next(
                    int(x.split(b":")[1]) for x in head.splitlines() if x.lower().startswith(b"content-length")
                )
                self.asked.append(head + await reader.readexactly(length))
                await self._play(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            self.gone.set()
        finally:
            writer.close()


@asynccontextmanager
async def serving(kind: Any, play: Play, **spec: Any) -> AsyncIterator[tuple[Server, Sender]]:
    handler = Server(play)
    server = await asyncio.start_server(handler, "127.0.0.1", 0)
    base = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
    sender = kind(base, UpstreamSpec(kind="local", base_url=base, **spec))
    try:
        yield handler, sender
    finally:
        await sender.close()
        server.close()


def answer(*parts: bytes, pause_s: float = 0.0, close: bool = False) -> Play:
    async def play(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for part in parts:
            writer.write(part)
            await writer.drain()
            await asyncio.sleep(pause_s)
        if close:
            writer.close()

    return play


async def pieces(sender: Sender) -> tuple[Head, bytes]:
    head, body = Head(0, "", b""), b""
    async with aclosing(sender.streamed("/x", b"{}", None)) as found:
        async for piece in found:
            if isinstance(piece, Head):
                head = piece
            else:
                body += piece
    return head, body


@pytest.mark.parametrize("kind", KINDS)
async def test_a_request_is_a_post_with_its_key_and_connections_are_kept(kind: Any) -> None:
    async with serving(kind, answer(OK)) as (server, sender):
        for _ in range(5):
            assert await sender.whole("/chat/completions", b'{"a":1}', "secret") == Head(200, "", b"body")
        assert server.connections == 1
        asked = server.asked[0].lower()
        assert asked.startswith(b"post /v1/chat/completions http/1.1\r\n") and asked.endswith(b'{"a":1}')
        assert b"authorization: bearer secret\r\n" in asked and b"content-type: application/json\r\n" in asked
        assert b"\r\nhost: 127.0.0.1:" in asked


CHUNKED = (
    b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\ndata:\r\n3;x=y\r\n a\n\r\n1\r\n\n\r\n"
    b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n"
)  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cuts=st.lists(st.integers(1, len(CHUNKED) - 1), max_size=8))
def test_an_answer_is_the_same_however_it_is_cut(kind: Any, cuts: list[int]) -> None:
    edges = [0, *sorted(set(cuts)), len(CHUNKED)]
    parts = [CHUNKED[a:b] for a, b in itertools.pairwise(edges)]

    async def play() -> None:
        async with serving(kind, answer(*parts)) as (server, sender):
            assert await pieces(sender) == (Head(200, "", b""), b"data: a\n\ndata: [DONE]\n\n")
            assert (await sender.whole("/x", b"{}", None)).body == b"data: a\n\ndata: [DONE]\n\n"
            assert server.connections == 1, "a stream that was read to its end keeps its connection"

    asyncio.run(play())


@pytest.mark.parametrize("kind", KINDS)
async def test_errors_come_whole_with_their_retry_after(kind: Any) -> None:
    busy = b"HTTP/1.1 429 Slow down\r\nRetry-After: 7\r\ncontent-length: 4\r\n\r\nbusy"
    async with serving(kind, answer(busy)) as (_, sender):
        assert await sender.whole("/x", b"{}", None) == Head(429, "7", b"busy")
        assert await pieces(sender) == (Head(429, "7", b"busy"), b"")


@pytest.mark.parametrize("kind", KINDS)
async def test_a_redirect_is_an_answer_and_is_not_followed(kind: Any) -> None:
    away = b"HTTP/1.1 307 Elsewhere\r\nlocation: http://203.0.113.10/\r\ncontent-length: 0\r\n\r\n"
    async with serving(kind, answer(away)) as (server, sender):
        assert (await sender.whole("/x", b"{}", None)).status == 307
        assert len(server.asked) == 1


@pytest.mark.parametrize("kind", KINDS)
async def test_a_server_that_closes_after_each_answer_is_asked_anew(kind: Any) -> None:
    polite = OK.replace(b"content-length", b"connection: close\r\ncontent-length")
    for said in (OK, polite, b"HTTP/1.0 200 OK\r\n\r\nbody"):  # OK: it says nothing and closes all the same
        async with serving(kind, answer(said, close=True)) as (server, sender):
            for _ in range(4):
                assert (await sender.whole("/x", b"{}", None)).body == b"body"
                await asyncio.sleep(0.01)
            assert server.connections == 4


@pytest.mark.parametrize("kind", KINDS)
async def test_a_kept_connection_that_died_unheard_is_replaced(kind: Any) -> None:
    first = True

    async def dies_at_the_second(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal first
        if first:
            first = False
            writer.write(OK)
            await reader.read(1)  # the next request begins ...
            writer.transport.abort()  # ... and nobody will ever answer it
        else:
            writer.write(OK)

    async with serving(kind, dies_at_the_second) as (server, sender):
        assert (await sender.whole("/x", b"{}", None)).body == b"body"
        if kind is HttptoolsSender:
            assert (await sender.whole("/x", b"{}", None)).body == b"body"
            assert server.connections == 2
        else:  # aiohttp repeats idempotent methods only; the gateway's own retry stands behind it
            with pytest.raises(OSError):
                await sender.whole("/x", b"{}", None)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"HTTP/1.1 200 OK\r\ncontent-le",
        b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nshort",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nda",
        b"SSH-2.0-OpenSSH_9.2\r\n",
    ],
)
async def test_what_breaks_off_or_is_no_http_is_an_oserror(kind: Any, said: bytes) -> None:
    async with serving(kind, answer(said, close=True)) as (_, sender):
        with pytest.raises(OSError):
            await asyncio.wait_for(sender.whole("/x", b"{}", None), 5)
        with pytest.raises(OSError):
            await asyncio.wait_for(pieces(sender), 5)


@pytest.mark.parametrize("kind", KINDS)
async def test_nobody_there_is_an_oserror(kind: Any) -> None:
    sender = kind("http://127.0.0.1:9/v1", UpstreamSpec(kind="local", base_url="http://127.0.0.1:9/v1"))
    with pytest.raises(OSError):
        await sender.whole("/x", b"{}", None)
    await sender.close()


@pytest.mark.parametrize("kind", KINDS)
async def test_silence_ends_in_a_timeout_and_the_connection_is_dropped(kind: Any) -> None:
    async with serving(kind, answer(pause_s=30), timeout_s=0.2, first_token_s=0.1) as (server, sender):
        with pytest.raises(TimeoutError):
            await sender.whole("/x", b"{}", None)
        with pytest.raises(TimeoutError):
            await pieces(sender)
        assert server.connections == 2


@pytest.mark.parametrize("kind", KINDS)
async def test_a_stream_may_pause_between_pieces_for_so_long_and_last_for_so_long(kind: Any) -> None:
    head = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
    bit = b"1\r\nx\r\n"
    async with serving(kind, answer(head, bit, bit, bit, b"0\r\n\r\n", pause_s=0.05), first_token_s=0.4) as (_, sender):
        assert (await pieces(sender))[1] == b"xxx"
    async with serving(kind, answer(head, bit, bit, pause_s=0.6), first_token_s=0.2) as (_, sender):
        with pytest.raises(TimeoutError):
            await pieces(sender)
    many = answer(head, *[bit] * 40, pause_s=0.05)
    async with serving(kind, many, first_token_s=0.4, timeout_s=0.5) as (_, sender):
        with pytest.raises(TimeoutError):
            await pieces(sender)


@pytest.mark.parametrize("kind", KINDS)
async def test_who_stops_reading_closes_the_connection(kind: Any) -> None:
    head = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\nx\r\n"
    async with serving(kind, answer(head, *[b"1\r\ny\r\n"] * 200, pause_s=0.02)) as (server, sender):
        async with aclosing(sender.streamed("/x", b"{}", None)) as found:
            async for piece in found:
                if piece == b"x":
                    break
        await asyncio.wait_for(server.gone.wait(), 10)
        waiting = asyncio.ensure_future(sender.whole("/x", b"{}", None))
        await asyncio.sleep(0.1)
        server.gone.clear()
        waiting.cancel()
        await asyncio.wait_for(server.gone.wait(), 10)


@pytest.mark.parametrize("kind", KINDS)
async def test_a_slow_reader_holds_the_server_back_rather_than_filling_memory(kind: Any) -> None:
    sent = 0

    async def flood(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
        for _ in range(2000):
            writer.write(b"10000\r\n" + b"x" * 65536 + b"\r\n")
            await writer.drain()
            sent += 65536
        writer.write(b"0\r\n\r\n")

    async with serving(kind, flood) as (_, sender):
        read = 0
        async with aclosing(sender.streamed("/x", b"{}", None)) as found:
            async for piece in found:
                if isinstance(piece, bytes):
                    read += len(piece)
                    if read == len(piece):
                        await asyncio.sleep(0.5)
                        assert sent < 40 << 20, "the kernel's buffers and ours, but not everything"
        assert read == 2000 * 65536


@pytest.mark.parametrize("kind", KINDS)
async def test_many_at_once_each_get_their_own_answer(kind: Any) -> None:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        body = server.asked[-1].partition(b"\r\n\r\n")[2]
        await asyncio.sleep(0.001 * (len(body) % 5))
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body))

    async with serving(kind, echo) as (server, sender):
        asked = [f'{{"n": {n}}}'.encode() for n in range(100)]
        found = await asyncio.gather(*(sender.whole("/x", data, None) for data in asked))
        assert [f.body for f in found] == asked
