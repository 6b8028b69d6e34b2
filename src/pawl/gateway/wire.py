"""HTTP as the gateway speaks it: bodies in, JSON and OpenAI-shaped errors out, on bare ASGI."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any

import orjson

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]
Headers = Sequence[tuple[bytes, bytes]]

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
    fields = [(b"content-type", kind), (b"content-length", str(len(data)).encode()), *headers]
    await send({"type": "http.response.start", "status": status, "headers": fields})
    await send({"type": "http.response.body", "body": data})


def header(scope: Scope, name: bytes) -> str | None:
    """A request header's value."""
    for key, value in scope["headers"]:
        if key == name:
            return str(value.decode("latin-1"))
    return None
