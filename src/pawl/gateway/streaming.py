"""A streamed answer on its way to the client."""

from __future__ import annotations

from typing import Any

import orjson

from pawl.gateway.exchange import Asked
from pawl.gateway.wire import Refused, Send
from pawl.rollout.route import Arm


class Stream:
    """Server-sent events to one client. The last chunk and `[DONE]` leave only after the record is safe."""

    def __init__(self, asked: Asked, arm: Arm, send: Send) -> None:
        self._asked, self._arm, self._send = asked, arm, send
        options = asked.body.get("stream_options")
        self._wants_usage = isinstance(options, dict) and bool(options.get("include_usage"))
        self.begun = False

    async def forward(self, chunk: dict[str, Any]) -> None:
        """One chunk, under the interaction's id and the agent's name."""
        if not chunk.get("choices") and not self._wants_usage:
            return  # the usage that only we asked for
        chunk["id"], chunk["model"] = self._asked.id, self._asked.agent
        if not self._wants_usage:
            chunk.pop("usage", None)
        await self._event(orjson.dumps(chunk))

    async def finish(self) -> None:
        """The end of a whole answer."""
        await self._event(b"[DONE]", more=False)

    async def fail(self, message: str) -> None:
        """The end of a broken one: an error event, and no `[DONE]`."""
        error = Refused(502, message, "upstream_error", "stream_broken")
        await self._event(orjson.dumps(error.body()), more=False)

    async def _event(self, data: bytes, *, more: bool = True) -> None:
        if not self.begun:
            self.begun = True
            headers = [
                (b"content-type", b"text/event-stream; charset=utf-8"),
                (b"cache-control", b"no-cache"),
                (b"x-pawl-arm", self._arm.name.encode("latin-1", "replace")),
            ]
            await self._send({"type": "http.response.start", "status": 200, "headers": headers})
        await self._send({"type": "http.response.body", "body": b"data: " + data + b"\n\n", "more_body": more})
