"""Calls to upstreams: what leaves, and what may be taken for an answer."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from functools import partial
from typing import Any

import msgspec
import orjson

from pawl.fleet.reach import NoKey, bases, key_of
from pawl.fleet.upstream import UpstreamSpec
from pawl.gateway.upstreams.balanced import Balanced, Look
from pawl.gateway.upstreams.sender import Head, Sender
from pawl.gateway.upstreams.sender_aiohttp import AiohttpSender
from pawl.gateway.upstreams.sender_httptools import HttptoolsSender

_LOOK_AT_KEY_S = 1.0
_MOST_LINE = 4 << 20  # bytes of one event


class UpstreamFailed(Exception):
    """The upstream gave no usable answer. Status 0: it could not be reached; 504: it took too long."""

    def __init__(
        self, status: int, message: str, body: dict[str, Any] | None = None, retry_after_s: float | None = None
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.body, self.retry_after_s = status, message, body, retry_after_s

    @property
    def its_fault(self) -> bool:
        """Whether another arm might do better, and this one's breaker counts it: the request itself is not wrong."""
        return self.status == 0 or self.status >= 500 or self.status in (401, 403, 404, 408, 429)

    @property
    def passing(self) -> bool:
        """Whether the same arm may do better in a moment: it was not reached, or said that it is busy."""
        return self.status in (0, 429, 503)


class NotCleared(Exception):
    """A request was about to go where its privacy mode forbids."""


class Place(msgspec.Struct):
    """Where an upstream is, and its key as last read."""

    spec: UpstreamSpec
    bases: tuple[str, ...]  # one for each of its servers
    key: str | None = None
    key_read_at: float = -1e9


class UpstreamClient:
    """All upstreams of the fleet. `allowed` names those that this request's privacy mode may reach."""

    def __init__(
        self,
        upstreams: Mapping[str, UpstreamSpec],
        places: Mapping[str, str],
        looks: Mapping[str, Callable[[str], Look | None]] | None = None,
        found: Mapping[str, Callable[[], Sequence[str]]] | None = None,
    ) -> None:
        """`looks`: for upstreams whose servers are looked after, the latest look at one by its base URL. `found`: for
        upstreams whose servers come and go, their base URLs now."""
        self._places = {n: Place(spec, bases(spec, places)) for n, spec in upstreams.items()}
        self._looks, self._found = looks or {}, found or {}
        self._senders: dict[str, Sender | Balanced] = {}

    @property
    def urls(self) -> dict[str, tuple[str, ...]]:
        """Base URLs of each upstream's servers, expanded."""
        return {name: place.bases for name, place in self._places.items()}

    @property
    def balanced(self) -> dict[str, Balanced]:
        """The upstreams on several servers."""
        return {name: sender for name, sender in self._senders.items() if isinstance(sender, Balanced)}

    async def start(self) -> None:
        """Make ready to send; connections are opened when they are needed."""
        for name, place in self._places.items():
            opening = partial(_open_sender, place.spec)
            where = self._found.get(name)
            if where is None and len(place.bases) == 1:
                self._senders[name] = opening(place.bases[0])
            else:
                self._senders[name] = Balanced(
                    where or partial(tuple, place.bases), opening, self._looks.get(name, lambda base: None)
                )

    async def close(self) -> None:
        """Close all connections."""
        for sender in self._senders.values():
            await sender.close()

    async def call(
        self, upstream: str, path: str, body: dict[str, Any], allowed: frozenset[str], session: str = ""
    ) -> dict[str, Any]:
        """One whole answer, a JSON object. `path`: e.g. "/chat/completions". UpstreamFailed otherwise."""
        place = self._cleared(upstream, allowed)
        try:
            head = await self._sender(upstream, session, body).whole(path, orjson.dumps(body), _key(place))
        except OSError as e:  # TimeoutError is one
            raise _unreachable(upstream, place, e) from e
        return _checked(upstream, head, path)

    async def stream(
        self, upstream: str, path: str, body: dict[str, Any], allowed: frozenset[str], session: str = ""
    ) -> AsyncGenerator[dict[str, Any], None]:
        """The chunks of a streamed answer. UpstreamFailed where it fails or ends without `[DONE]`."""
        place = self._cleared(upstream, allowed)
        rest = b""
        try:
            sender = self._sender(upstream, session, body)
            async with aclosing(sender.streamed(path, orjson.dumps(body), _key(place))) as pieces:
                async for piece in pieces:
                    if isinstance(piece, Head):
                        if piece.status != 200:
                            _checked(upstream, piece, path)
                        continue
                    *lines, rest = (rest + piece).split(b"\n")
                    if len(rest) > _MOST_LINE:
                        raise ValueError("a line without end")
                    for line in lines:
                        if not line.startswith(b"data:"):
                            continue
                        data = line[5:].strip()
                        if data == b"[DONE]":
                            return
                        yield _chunk(upstream, data)
        except (OSError, ValueError) as e:  # ValueError: no JSON, or an endless line
            raise _unreachable(upstream, place, e) from e
        raise UpstreamFailed(0, f"upstream {upstream} broke off in the middle of its answer")

    def _sender(self, upstream: str, session: str, body: dict[str, Any]) -> Sender:
        sender = self._senders.get(upstream)
        if sender is None:
            raise UpstreamFailed(0, "the gateway is starting")
        return sender.towards(session, str(body.get("model"))) if isinstance(sender, Balanced) else sender

    def _cleared(self, upstream: str, allowed: frozenset[str]) -> Place:
        """The one door out: whatever planned the call, what is not allowed does not leave."""
        if upstream not in allowed:
            raise NotCleared(f"upstream {upstream} is outside this request's privacy mode")
        return self._places[upstream]


def _open_sender(spec: UpstreamSpec, base: str) -> Sender:
    return (HttptoolsSender if base.startswith("http://") else AiohttpSender)(base, spec)


def _key(place: Place) -> str | None:
    """The upstream's key; a key file that changed is read again within a second."""
    spec = place.spec
    if not spec.api_key_env and not spec.api_key_file:
        return None
    now = time.monotonic()
    if now - place.key_read_at >= _LOOK_AT_KEY_S:
        try:
            place.key, place.key_read_at = key_of(spec, "where the gateway runs"), now
        except NoKey as e:
            raise UpstreamFailed(401, str(e)) from e
    return place.key


def _checked(upstream: str, head: Head, path: str) -> dict[str, Any]:
    try:
        body = orjson.loads(head.body)
    except orjson.JSONDecodeError:
        body = {}
    if not isinstance(body, dict):
        body = {}
    if head.status == 200 and _is_answer(body, path):
        return body
    said = str(body.get("error") or body)[:300] if body else head.body[:300].decode(errors="replace")
    raise UpstreamFailed(
        head.status if head.status >= 400 else 502,
        f"upstream {upstream} answered {head.status}: {said}",
        body or None,
        float(head.retry_after) if head.retry_after.isdigit() else None,
    )


def _chunk(upstream: str, data: bytes) -> dict[str, Any]:
    chunk = orjson.loads(data)
    if not _is_chunk(chunk):
        raise UpstreamFailed(502, f"upstream {upstream} sent something that is no chunk of an answer")
    if chunk.get("error"):
        raise UpstreamFailed(500, str(chunk["error"]), chunk)
    found: dict[str, Any] = chunk
    return found


def _unreachable(upstream: str, place: Place, e: BaseException) -> UpstreamFailed:
    late = isinstance(e, TimeoutError)
    what = "took too long" if late else f"cannot be reached ({e})"
    message = f"upstream {upstream} at {', '.join(place.bases)} {what}: is it up? see `pawl status`"
    return UpstreamFailed(504 if late else 0, message)


def _is_answer(body: dict[str, Any], path: str) -> bool:
    if path == "/embeddings":
        return isinstance(body.get("data"), list)
    choices = body.get("choices")
    if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
        return False
    return isinstance(choices[0].get("message"), dict) or isinstance(choices[0].get("text"), str)


def _is_chunk(chunk: Any) -> bool:
    if not isinstance(chunk, dict):
        return False
    choices = chunk.get("choices") or []
    return isinstance(choices, list) and all(
        isinstance(c, dict) and isinstance(c.get("delta") or {}, dict) for c in choices
    )
