"""The paths of files and batches."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from pawl.gateway.access.auth import CLIENTS, Doorkeeper
from pawl.gateway.api.batches import Batches
from pawl.gateway.api.files import Files
from pawl.gateway.api.understand import hints
from pawl.gateway.wire import Receive, Scope, Send, read_json, send_bytes, send_json

Handler = Callable[[Scope, Receive, Send, str], Awaitable[None]]


class BatchPaths:
    """Files in, batches over them, files out. Disk work runs in threads."""

    def __init__(self, files: Files, batches: Batches, door: Doorkeeper, max_body: int) -> None:
        self._files, self._batches, self._door, self._most = files, batches, door, max_body

    def handlers(self) -> dict[tuple[str, str], Handler]:
        """By method and path; `{id}` stands for one segment, which the handler gets."""
        return {
            ("POST", "/v1/files"): self._upload,
            ("GET", "/v1/files"): self._files_of_key,
            ("GET", "/v1/files/{id}"): self._file,
            ("DELETE", "/v1/files/{id}"): self._delete,
            ("GET", "/v1/files/{id}/content"): self._content,
            ("POST", "/v1/batches"): self._create,
            ("GET", "/v1/batches"): self._batches_of_key,
            ("GET", "/v1/batches/{id}"): self._batch,
            ("POST", "/v1/batches/{id}/cancel"): self._cancel,
        }

    async def _upload(self, scope: Scope, receive: Receive, send: Send, _: str) -> None:
        key = await self._door.admit(scope, CLIENTS)
        await send_json(send, 200, (await self._files.upload(scope, receive, key)).shown())

    async def _files_of_key(self, scope: Scope, receive: Receive, send: Send, _: str) -> None:
        key = await self._door.admit(scope, CLIENTS)
        await send_json(send, 200, _listed([f.shown() for f in await asyncio.to_thread(self._files.all, key)]))

    async def _file(self, scope: Scope, receive: Receive, send: Send, name: str) -> None:
        key = await self._door.admit(scope, CLIENTS)
        await send_json(send, 200, self._files.find(name, key).shown())

    async def _delete(self, scope: Scope, receive: Receive, send: Send, name: str) -> None:
        key = await self._door.admit(scope, CLIENTS)
        await send_json(send, 200, self._files.delete(name, key))

    async def _content(self, scope: Scope, receive: Receive, send: Send, name: str) -> None:
        key = await self._door.admit(scope, CLIENTS)
        found = self._files.find(name, key)
        data = await asyncio.to_thread(self._files.path(found.id).read_bytes)
        await send_bytes(send, 200, data, b"application/octet-stream")

    async def _create(self, scope: Scope, receive: Receive, send: Send, _: str) -> None:
        key = await self._door.admit(scope, CLIENTS)
        body = await read_json(receive, self._most)
        made = await asyncio.to_thread(self._batches.create, body, key, hints(scope))
        await send_json(send, 200, made.shown())

    async def _batches_of_key(self, scope: Scope, receive: Receive, send: Send, _: str) -> None:
        key = await self._door.admit(scope, CLIENTS)
        await send_json(send, 200, _listed([b.shown() for b in await asyncio.to_thread(self._batches.all, key)]))

    async def _batch(self, scope: Scope, receive: Receive, send: Send, name: str) -> None:
        key = await self._door.admit(scope, CLIENTS)
        await send_json(send, 200, (await asyncio.to_thread(self._batches.find, name, key)).shown())

    async def _cancel(self, scope: Scope, receive: Receive, send: Send, name: str) -> None:
        key = await self._door.admit(scope, CLIENTS)
        await send_json(send, 200, (await asyncio.to_thread(self._batches.cancel, name, key)).shown())


def _listed(rows: list[dict[str, Any]]) -> dict[str, Any]:
    first, last = (rows[0]["id"], rows[-1]["id"]) if rows else (None, None)
    return {"object": "list", "data": msgspec.to_builtins(rows), "has_more": False, "first_id": first, "last_id": last}
