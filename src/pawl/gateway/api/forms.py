"""The shape in which an answer goes back: one class a family of endpoints."""

from __future__ import annotations

from typing import Any, Protocol

import orjson

from pawl.gateway.api.responses_events import Events, from_chat
from pawl.gateway.exchange import Asked
from pawl.gateway.wire import Refused

DONE = b"data: [DONE]\n\n"


class Form(Protocol):
    """Turns what an upstream said into what the client reads. Used for one request."""

    def whole(self, body: dict[str, Any]) -> dict[str, Any]:
        """A whole answer."""
        ...

    def chunk(self, chunk: dict[str, Any]) -> bytes:
        """The events of one chunk; empty where the client needs none."""
        ...

    def end(self) -> bytes:
        """The events that say the answer is whole. They leave only after its record is safe."""
        ...

    def broken(self, message: str) -> bytes:
        """The events that say it is not."""
        ...


class ChatForm:
    """Chat and text completions: the upstream's own shape, under the interaction's id and the agent's name."""

    def __init__(self, asked: Asked) -> None:
        self._id, self._agent = asked.id, asked.agent
        options = asked.body.get("stream_options")
        self._wants_usage = isinstance(options, dict) and bool(options.get("include_usage"))

    def whole(self, body: dict[str, Any]) -> dict[str, Any]:
        body["id"], body["model"] = self._id, self._agent
        return body

    def chunk(self, chunk: dict[str, Any]) -> bytes:
        if not self._wants_usage:
            if not chunk.get("choices"):
                return b""  # the usage that only we asked for
            chunk.pop("usage", None)
        chunk["id"], chunk["model"] = self._id, self._agent
        return b"data: %b\n\n" % orjson.dumps(chunk)

    def end(self) -> bytes:
        return DONE

    def broken(self, message: str) -> bytes:
        error = Refused(502, message, "upstream_error", "stream_broken")
        return b"data: %b\n\n" % orjson.dumps(error.body())


class EmbeddingsForm:
    """Embeddings: as they come, under the name that was asked for."""

    def __init__(self, asked: Asked) -> None:
        self._model = asked.body["model"]

    def whole(self, body: dict[str, Any]) -> dict[str, Any]:
        body["model"] = self._model
        return body

    def chunk(self, chunk: dict[str, Any]) -> bytes:
        return b""

    def end(self) -> bytes:
        return b""

    def broken(self, message: str) -> bytes:
        return b""


class ResponsesForm:
    """The Responses API over a chat completion."""

    def __init__(self, asked: Asked, request: dict[str, Any]) -> None:
        self._asked, self._request = asked, request
        self._events: Events | None = None

    def whole(self, body: dict[str, Any]) -> dict[str, Any]:
        asked = self._asked
        return from_chat(body, self._request, response_id=asked.id, model=asked.agent, created=asked.at)

    def chunk(self, chunk: dict[str, Any]) -> bytes:
        begin = b""
        if self._events is None:
            asked = self._asked
            self._events = Events(self._request, response_id=asked.id, model=asked.agent, created=asked.at)
            begin = _events(self._events.start())
        return begin + _events(self._events.chunk(chunk))

    def end(self) -> bytes:
        assert self._events is not None
        return _events(self._events.finish())

    def broken(self, message: str) -> bytes:
        assert self._events is not None
        return _events(self._events.fail(message))


def _events(rows: list[dict[str, Any]]) -> bytes:
    return b"".join(b"event: %b\ndata: %b\n\n" % (row["type"].encode(), orjson.dumps(row)) for row in rows)
