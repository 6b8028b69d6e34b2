"""Calls to upstreams over pooled connections, on aiohttp: its client costs a fraction of the alternatives'."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import msgspec
import orjson

from pawl.fleet.spec import UpstreamSpec


class Reply(msgspec.Struct):
    """A whole answer of an upstream. Status 0: it could not be reached."""

    status: int
    body: dict[str, Any]
    error: str | None = None


class UpstreamFailed(Exception):
    """The upstream gave no usable answer. Status 0: it could not be reached."""

    def __init__(self, status: int, message: str, body: dict[str, Any] | None = None) -> None:
        super().__init__(message)
        self.status, self.message, self.body = status, message, body

    @property
    def retryable(self) -> bool:
        """Whether another arm might do better: not where the request itself is wrong."""
        return self.status == 0 or self.status >= 500 or self.status in (404, 408, 429)


class UpstreamClient:
    """All upstreams of the fleet."""

    def __init__(self, upstreams: dict[str, UpstreamSpec], places: dict[str, str]) -> None:
        self._specs = upstreams
        self._urls: dict[str, str] = {}
        for name, spec in upstreams.items():
            url = spec.base_url
            for key, value in places.items():
                url = url.replace("${" + key + "}", value)
            self._urls[name] = url.rstrip("/")
        self._session: aiohttp.ClientSession | None = None

    async def start(self) -> None:
        """Open the connection pool."""
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=30),
            json_serialize=lambda v: orjson.dumps(v).decode(),
        )

    async def close(self) -> None:
        """Close all connections."""
        if self._session:
            await self._session.close()

    async def call(self, upstream: str, body: dict[str, Any]) -> dict[str, Any]:
        """One whole chat completion. UpstreamFailed otherwise."""
        try:
            async with self._post(upstream, body) as answer:
                return await self._checked(upstream, answer)
        except (TimeoutError, aiohttp.ClientError, OSError) as e:
            raise self._unreachable(upstream, e) from e

    async def stream(self, upstream: str, body: dict[str, Any]) -> AsyncIterator[dict[str, Any]]:
        """The chunks of a streamed chat completion. UpstreamFailed where it fails or ends without `[DONE]`."""
        try:
            async with self._post(upstream, body) as answer:
                if answer.status != 200:
                    await self._checked(upstream, answer)
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
            raise self._unreachable(upstream, e) from e

    def _post(self, upstream: str, body: dict[str, Any]) -> Any:
        if self._session is None:
            raise UpstreamFailed(0, "the gateway is starting")
        spec = self._specs[upstream]
        headers = {"content-type": "application/json"}
        if spec.api_key_env:
            headers["authorization"] = f"Bearer {os.environ.get(spec.api_key_env, '')}"
        timeout = aiohttp.ClientTimeout(total=spec.timeout_s, connect=5)
        return self._session.post(
            f"{self._urls[upstream]}/chat/completions", data=orjson.dumps(body), headers=headers, timeout=timeout
        )

    async def _checked(self, upstream: str, answer: aiohttp.ClientResponse) -> dict[str, Any]:
        data = await answer.read()
        try:
            body = orjson.loads(data)
        except orjson.JSONDecodeError:
            body = {}
        if not isinstance(body, dict):
            body = {}
        if answer.status == 200 and _is_answer(body):
            return body
        said = str(body.get("error") or body)[:300] if body else data[:300].decode(errors="replace")
        status = answer.status if answer.status != 200 else 502
        raise UpstreamFailed(status, f"upstream {upstream} answered {answer.status}: {said}", body or None)

    def _unreachable(self, upstream: str, e: BaseException) -> UpstreamFailed:
        what = "took too long" if isinstance(e, asyncio.TimeoutError) else f"cannot be reached ({type(e).__name__})"
        return UpstreamFailed(0, f"upstream {upstream} at {self._urls[upstream]} {what}: is it up? see `pawl status`")


def _is_answer(body: dict[str, Any]) -> bool:
    choices = body.get("choices")
    if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
        return False
    return isinstance(choices[0].get("message"), dict)


def _is_chunk(chunk: Any) -> bool:
    if not isinstance(chunk, dict):
        return False
    choices = chunk.get("choices") or []
    return isinstance(choices, list) and all(
        isinstance(c, dict) and isinstance(c.get("delta") or {}, dict) for c in choices
    )
