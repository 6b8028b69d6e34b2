"""A fast OpenAI-compatible upstream that counts what it is asked. `python -m benchmarks.stub_upstream --port N`.

It must cost next to nothing, because it shares a core with the load generator: no framework, answers made beforehand,
and a body that is searched and not parsed. A streamed answer has `max_tokens` chunks: the first leaves at once, the
others follow at the pace that `POST /pace/MILLISECONDS` sets.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import signal
import time
from typing import Any

import httptools
import uvloop

MODEL = "base"  # what a gateway has to write in place of the name that its client sent
_MODELS = (b'"model":"base"', b'"model": "base"')
_STREAMED = (b'"stream":true', b'"stream": true')
_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b"
_NO_SUCH_PATH = b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n"
_STREAM_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
_TEXT = (
    "A request without the required field must be refused with 400, and so must one whose field has another type. "
) * 7


def _answer() -> bytes:
    """A whole response of about 1 KB."""
    choice = {"index": 0, "message": {"role": "assistant", "content": _TEXT}, "finish_reason": "stop"}
    usage = {"prompt_tokens": 350, "completion_tokens": 160, "total_tokens": 510}
    whole = {"id": "chatcmpl-stub", "object": "chat.completion", "created": 1, "model": MODEL}
    body = json.dumps({**whole, "choices": [choice], "usage": usage}, separators=(",", ":")).encode()
    return _HEAD % (len(body), body)


def _event(data: dict[str, Any] | None) -> bytes:
    """One server-sent event as an HTTP chunk; None: the end."""
    text = b"data: " + (b"[DONE]" if data is None else json.dumps(data, separators=(",", ":")).encode()) + b"\n\n"
    return b"%x\r\n%b\r\n" % (len(text), text)


def _chunk(delta: dict[str, Any], finish: str | None, **more: Any) -> dict[str, Any]:
    base = {"id": "chatcmpl-stub", "object": "chat.completion.chunk", "created": 1, "model": MODEL}
    return {**base, "choices": [{"index": 0, "delta": delta, "finish_reason": finish}], **more}


ANSWER = _answer()
_USAGE = {"prompt_tokens": 350, "completion_tokens": 8, "total_tokens": 358}
_FIRST = _STREAM_HEAD + _event(_chunk({"role": "assistant", "content": "word "}, None))
_MORE = _event(_chunk({"content": "word "}, None))
_LAST = _event(_chunk({}, "stop")) + _event({**_chunk({}, None), "choices": [], "usage": _USAGE}) + _event(None)
_LAST += b"0\r\n\r\n"


class Counts:
    """What all connections together have seen."""

    def __init__(self) -> None:
        self.seen = 0  # chat requests, each of them answered with 200
        self.wrong_model = 0  # of these, the ones in which the client's model name was left as it was
        self.pace_s = 0.0

    def text(self) -> bytes:
        """As `GET /count` says it; `at_ns` is this process' clock, for rates that no delay of the reader changes."""
        said = {"seen": self.seen, "wrong_model": self.wrong_model, "at_ns": time.perf_counter_ns()}
        body = json.dumps(said).encode()
        return _HEAD % (len(body), body)


class Connection(asyncio.Protocol):
    """One keep-alive connection."""

    def __init__(self, counts: Counts) -> None:
        self._counts = counts
        # No `on_header`: what httptools need not call costs nothing.
        self._parser = httptools.HttpRequestParser(self)
        self._url, self._body = b"", b""
        self._timer: asyncio.TimerHandle | None = None
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """asyncio: it is open."""
        self._transport = transport  # type: ignore[assignment]  # a TCP server's transports read and write

    def connection_lost(self, exc: Exception | None) -> None:
        """asyncio: it is gone; a stream that is under way ends."""
        if self._timer:
            self._timer.cancel()

    def data_received(self, data: bytes) -> None:
        """asyncio: bytes."""
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self._transport.close()

    def on_url(self, url: bytes) -> None:
        """httptools: a request begins."""
        self._url, self._body = url, b""

    def on_body(self, body: bytes) -> None:
        """httptools: a part of its body."""
        self._body = self._body + body if self._body else body

    def on_message_complete(self) -> None:
        """httptools: it is whole."""
        url = self._url
        if url == b"/v1/chat/completions":
            self._chat(self._body)
        elif url == b"/count":
            self._transport.write(self._counts.text())
        elif url.startswith(b"/pace/"):
            self._counts.pace_s = int(url[6:]) / 1000
            self._transport.write(_HEAD % (2, b"{}"))
        else:
            self._transport.write(_NO_SUCH_PATH)

    def _chat(self, body: bytes) -> None:
        counts = self._counts
        counts.seen += 1
        if _MODELS[0] not in body and _MODELS[1] not in body:
            counts.wrong_model += 1
        if _STREAMED[0] in body or _STREAMED[1] in body:
            self._transport.write(_FIRST)
            self._later(int(json.loads(body).get("max_tokens") or 8) - 1)
        else:
            self._transport.write(ANSWER)

    def _later(self, left: int) -> None:
        self._timer = asyncio.get_running_loop().call_later(self._counts.pace_s, self._next, left)

    def _next(self, left: int) -> None:
        if left:
            self._transport.write(_MORE)
            self._later(left - 1)
        else:
            self._timer = None
            self._transport.write(_LAST)


async def serve(port: int) -> None:
    """Until SIGTERM."""
    loop, ended, counts = asyncio.get_running_loop(), asyncio.Event(), Counts()
    loop.add_signal_handler(signal.SIGTERM, ended.set)
    server = await loop.create_server(lambda: Connection(counts), "127.0.0.1", port, backlog=4096)
    gc.freeze()
    gc.disable()  # nothing here makes cycles that grow, and a collection would show in the percentiles
    await ended.wait()
    server.close()


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, required=True, help="on 127.0.0.1")
    uvloop.run(serve(parser.parse_args().port))


if __name__ == "__main__":
    main()
