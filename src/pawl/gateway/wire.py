"""HTTP as the gateway speaks it: bodies in, JSON and OpenAI-shaped errors out, on bare ASGI."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any

import orjson

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]
Headers = Sequence[tuple[bytes, bytes]]

_QUIET_S, _LINGER_S = 5.0, 30.0  # how long a refused request may still send: without a byte, and in all
MAX_DEPTH = 100  # JSON libraries give up near 1,000; a record must be readable from any stack


class Refused(Exception):
    """A request that ends here, with an error in OpenAI's shape."""

    def __init__(
        self,
        status: int,
        message: str,
        kind: str = "invalid_request_error",
        code: str | None = None,
        headers: Headers = (),
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.kind, self.code, self.headers = status, message, kind, code, headers

    def body(self) -> dict[str, Any]:
        """The error as OpenAI's clients expect it."""
        return {"error": {"message": self.message, "type": self.kind, "param": None, "code": self.code}}


class Hearing:
    """A request's `receive`, which knows whether all of its body has come."""

    __slots__ = ("_receive", "over")

    def __init__(self, receive: Receive, over: bool = False) -> None:
        self._receive, self.over = receive, over

    async def __call__(self) -> dict[str, Any]:
        message = await self._receive()
        self.over = not message.get("more_body")
        return message

    async def rest(self) -> None:
        """Read what is still sent and throw it away; ends with the body, with the client, or when it takes too long."""
        try:
            async with asyncio.timeout(_LINGER_S):
                while not self.over:
                    async with asyncio.timeout(_QUIET_S):
                        await self()
        except TimeoutError:
            return


async def send_refusal(send: Send, refused: Refused, heard: Hearing) -> None:
    """The refusal as the answer, at once; the connection stays until the client has sent what it is sending.

    Closing on unread bytes resets the connection, and the client may lose the answer with it (RFC 9112, section 9.6).
    """
    data = orjson.dumps(refused.body())
    await send(_start(refused.status, data, b"application/json", refused.headers))
    await send({"type": "http.response.body", "body": data, "more_body": not heard.over})
    if not heard.over:
        await heard.rest()
        await send({"type": "http.response.body", "body": b""})


async def read_body(receive: Receive, most: int) -> bytes:
    """The whole body. Refused(413) over `most` bytes, so that no client can fill the memory."""
    message = await receive()
    if message["type"] == "http.request" and not message.get("more_body"):
        whole: bytes = message.get("body", b"")
        if len(whole) <= most:
            return whole
    parts: list[bytes] = []
    size = 0
    while True:
        if message["type"] == "http.disconnect":
            raise Refused(400, "the client went away")
        part = message.get("body", b"")
        size += len(part)
        if size > most:
            raise Refused(413, f"the body is larger than {most} bytes", code="request_too_large")
        parts.append(part)
        if not message.get("more_body"):
            return b"".join(parts)
        message = await receive()


async def read_json(receive: Receive, most: int) -> Any:
    """The body as JSON. Refused(400) where it is not, or is nested deeper than any record may be."""
    data = await read_body(receive, most)
    try:
        body = orjson.loads(data)
    except orjson.JSONDecodeError as e:
        raise Refused(400, f"the body is not JSON: {e}") from e
    # Counting brackets is quick and bounds the depth; only a body with many is walked.
    if data.count(b"[") + data.count(b"{") > MAX_DEPTH and _deeper_than(MAX_DEPTH, body):
        raise Refused(400, f"the body is nested deeper than {MAX_DEPTH} levels")
    return body


def _deeper_than(limit: int, value: Any) -> bool:
    level = [value]
    for _ in range(limit):
        level = [child for node in level for child in _children(node)]
    return any(isinstance(node, dict | list) for node in level)


def _children(node: Any) -> Iterable[Any]:
    if isinstance(node, dict):
        return node.values()
    return node if isinstance(node, list) else ()


async def send_json(send: Send, status: int, body: Any, headers: Headers = ()) -> None:
    """One JSON answer."""
    await send_bytes(send, status, orjson.dumps(body), b"application/json", headers)


async def send_bytes(send: Send, status: int, data: bytes, kind: bytes, headers: Headers = ()) -> None:
    """One whole answer."""
    await send(_start(status, data, kind, headers))
    await send({"type": "http.response.body", "body": data})


def _start(status: int, data: bytes, kind: bytes, headers: Headers) -> dict[str, Any]:
    fields = [(b"content-type", kind), (b"content-length", str(len(data)).encode()), *headers]
    return {"type": "http.response.start", "status": status, "headers": fields}


def header(scope: Scope, name: bytes) -> str | None:
    """A request header's value."""
    for key, value in scope["headers"]:
        if key == name:
            return str(value.decode("latin-1"))
    return None
