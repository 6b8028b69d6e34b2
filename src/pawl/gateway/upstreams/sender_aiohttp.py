"""Sends through aiohttp: TLS, and whatever else a provider's servers may do."""

from __future__ import annotations

from collections.abc import AsyncGenerator

import aiohttp
from yarl import URL

from pawl.fleet.upstream import UpstreamSpec
from pawl.gateway.upstreams.sender import Head, NotReached, NotReachedInTime


class AiohttpSender:
    """One upstream over pooled connections. No proxies and no redirects: they lead to hosts that nobody cleared."""

    def __init__(self, base: str, spec: UpstreamSpec) -> None:
        self._base = base
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=30), trust_env=False
        )
        self._whole = aiohttp.ClientTimeout(total=spec.timeout_s, sock_connect=spec.connect_s)
        self._streamed = aiohttp.ClientTimeout(
            total=spec.timeout_s, sock_connect=spec.connect_s, sock_read=spec.first_token_s
        )

    async def whole(self, path: str, data: bytes, key: str | None) -> Head:
        try:
            async with self._session.post(
                URL(self._base + path), data=data, headers=_headers(key), timeout=self._whole, allow_redirects=False
            ) as answer:
                return Head(answer.status, answer.headers.get("retry-after", ""), await answer.read())
        except (TimeoutError, aiohttp.ClientError) as e:
            raise _named(e) from e

    async def streamed(self, path: str, data: bytes, key: str | None) -> AsyncGenerator[Head | bytes, None]:
        try:
            async with self._session.post(
                URL(self._base + path), data=data, headers=_headers(key), timeout=self._streamed, allow_redirects=False
            ) as answer:
                body = b"" if answer.status == 200 else await answer.read()
                yield Head(answer.status, answer.headers.get("retry-after", ""), body)
                if answer.status == 200:
                    async for piece in answer.content.iter_any():
                        yield piece
        except (TimeoutError, aiohttp.ClientError) as e:
            raise _named(e) from e

    async def close(self) -> None:
        await self._session.close()


def _named(e: Exception) -> Exception:
    """As the port names it; aiohttp's own timeouts are ClientErrors too."""
    if isinstance(e, aiohttp.ConnectionTimeoutError):
        return NotReachedInTime("no connection in time")
    if isinstance(e, TimeoutError):
        return e
    if isinstance(e, aiohttp.ClientConnectorError):
        return NotReached(type(e).__name__)
    return OSError(type(e).__name__)


def _headers(key: str | None) -> dict[str, str]:
    return {"content-type": "application/json", **({"authorization": f"Bearer {key}"} if key else {})}
