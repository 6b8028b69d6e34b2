"""Calls to upstreams over pooled connections, on aiohttp: its client costs a fraction of the alternatives'."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import orjson
from yarl import URL

from pawl.fleet.upstream import UpstreamSpec

_LOOK_AT_KEY_S = 1.0  # a key file that changed is read again within this time


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
    """Where an upstream is and how to talk to it; made once."""

    spec: UpstreamSpec
    base: str
    urls: dict[str, URL]
    whole: aiohttp.ClientTimeout
    streamed: aiohttp.ClientTimeout
    headers: dict[str, str]
    key_read_at: float = -1e9


class UpstreamClient:
    """All upstreams of the fleet. `allowed` names those that this request's privacy mode may reach."""

    def __init__(self, upstreams: Mapping[str, UpstreamSpec], places: Mapping[str, str]) -> None:
        self._places = {name: _place(spec, places) for name, spec in upstreams.items()}
        self._session: aiohttp.ClientSession | None = None

    @property
    def urls(self) -> dict[str, str]:
        """Base URL of each upstream, expanded."""
        return {name: place.base for name, place in self._places.items()}

    async def start(self) -> None:
        """Open the connection pool."""
        # No proxies and no redirects: both would send a request to a host that nobody cleared.
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=30), trust_env=False, auto_decompress=True
        )

    async def close(self) -> None:
        """Close all connections."""
        if self._session:
            await self._session.close()

    async def call(self, upstream: str, path: str, body: dict[str, Any], allowed: frozenset[str]) -> dict[str, Any]:
        """One whole answer, a JSON object. `path`: e.g. "/chat/completions". UpstreamFailed otherwise."""
        place = self._cleared(upstream, allowed)
        try:
            async with self._post(place, path, body, place.whole) as answer:
                return await _checked(upstream, answer, path)
        except (TimeoutError, aiohttp.ClientError, OSError) as e:
            raise _unreachable(upstream, place, e) from e

    async def stream(
        self, upstream: str, path: str, body: dict[str, Any], allowed: frozenset[str]
    ) -> AsyncIterator[dict[str, Any]]:
        """The chunks of a streamed answer. UpstreamFailed where it fails or ends without `[DONE]`."""
        place = self._cleared(upstream, allowed)
        try:
            async with self._post(place, path, body, place.streamed) as answer:
                if answer.status != 200:
                    await _checked(upstream, answer, path)
                finished = False
                async for line in answer.content:
                    if not line.startswith(b"data:"):
                        continue
                    data = line[5:].strip()
                    if data == b"[DONE]":
                        finished = True
                        break
                    chunk = orjson.loads(data)
                    if not _is_chunk(chunk):
                        raise UpstreamFailed(502, f"upstream {upstream} sent something that is no chunk of an answer")
                    if chunk.get("error"):
                        raise UpstreamFailed(500, str(chunk["error"]), chunk)
                    yield chunk
                if not finished:
                    raise UpstreamFailed(0, f"upstream {upstream} broke off in the middle of its answer")
        except (TimeoutError, aiohttp.ClientError, OSError, ValueError) as e:  # ValueError: no JSON, or an endless line
            raise _unreachable(upstream, place, e) from e

    def _cleared(self, upstream: str, allowed: frozenset[str]) -> Place:
        """The one door out: whatever planned the call, what is not allowed does not leave."""
        if upstream not in allowed:
            raise NotCleared(f"upstream {upstream} is outside this request's privacy mode")
        return self._places[upstream]

    def _post(self, place: Place, path: str, body: dict[str, Any], timeout: aiohttp.ClientTimeout) -> Any:
        if self._session is None:
            raise UpstreamFailed(0, "the gateway is starting")
        url = place.urls.get(path)
        if url is None:
            url = place.urls[path] = URL(place.base + path)
        if place.spec.api_key_env or place.spec.api_key_file:
            _refresh_key(place)
        return self._session.post(
            url, data=orjson.dumps(body), headers=place.headers, timeout=timeout, allow_redirects=False
        )


def expanded(url: str, places: Mapping[str, str]) -> str:
    """A URL with its `${PAWL_...}` replaced (pure)."""
    for key, value in places.items():
        url = url.replace("${" + key + "}", value)
    return url


def _place(spec: UpstreamSpec, places: Mapping[str, str]) -> Place:
    base = expanded(spec.base_url, places)
    whole = aiohttp.ClientTimeout(total=spec.timeout_s, sock_connect=spec.connect_s)
    streamed = aiohttp.ClientTimeout(total=spec.timeout_s, sock_connect=spec.connect_s, sock_read=spec.first_token_s)
    return Place(spec, base.rstrip("/"), {}, whole, streamed, {"content-type": "application/json"})


def _refresh_key(place: Place) -> None:
    now = time.monotonic()
    if now - place.key_read_at < _LOOK_AT_KEY_S:
        return
    spec = place.spec
    try:
        from_file = Path(spec.api_key_file).read_text().strip() if spec.api_key_file else None
    except OSError as e:
        raise UpstreamFailed(401, f"its key file cannot be read ({e.strerror}); see api_key_file in fleet.yaml") from e
    key = from_file or os.environ.get(spec.api_key_env or "")
    if not key:
        raise UpstreamFailed(401, f"its key is not set: export {spec.api_key_env} where the gateway runs")
    place.headers["authorization"] = f"Bearer {key}"
    place.key_read_at = now


async def _checked(upstream: str, answer: aiohttp.ClientResponse, path: str) -> dict[str, Any]:
    data = await answer.read()
    try:
        body = orjson.loads(data)
    except orjson.JSONDecodeError:
        body = {}
    if not isinstance(body, dict):
        body = {}
    if answer.status == 200 and _is_answer(body, path):
        return body
    said = str(body.get("error") or body)[:300] if body else data[:300].decode(errors="replace")
    status = answer.status if answer.status >= 400 else 502
    wait = answer.headers.get("retry-after", "")
    raise UpstreamFailed(
        status,
        f"upstream {upstream} answered {answer.status}: {said}",
        body or None,
        float(wait) if wait.isdigit() else None,
    )


def _unreachable(upstream: str, place: Place, e: BaseException) -> UpstreamFailed:
    late = isinstance(e, asyncio.TimeoutError)
    what = "took too long" if late else f"cannot be reached ({type(e).__name__})"
    return UpstreamFailed(
        504 if late else 0, f"upstream {upstream} at {place.base} {what}: is it up? see `pawl status`"
    )


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
