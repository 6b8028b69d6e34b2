"""A chat completion, whole or streamed, told as a Response (pure).

Shapes: OpenAI API reference, Responses, the response object and streaming events.
"""

from __future__ import annotations

import itertools
import json
from dataclasses import dataclass, field
from typing import Any

Object = dict[str, Any]

_INCOMPLETE = {"length": "max_output_tokens", "content_filter": "content_filter"}


def from_chat(answer: Object, request: Object, *, response_id: str, model: str, created: float) -> Object:
    """A whole chat completion as the Response to a request; `created` in seconds since 1970. Raises nothing.

    Source: OpenAI API reference, Responses, the response object.
    """
    events = Events(request, response_id, model, created)
    choices = [{**choice, "delta": _as_delta(choice.get("message"))} for choice in _objects(answer.get("choices"))]
    events.chunk({"choices": choices, "usage": answer.get("usage")})
    response: Object = events.finish()[-1]["response"]
    return response


def _as_delta(message: Any) -> Object:
    said = _object(message)
    calls = [{**call, "index": n} for n, call in enumerate(_objects(said.get("tool_calls")))]
    return {**said, "tool_calls": calls}


@dataclass(eq=False)
class _Part:
    kind: str  # output_text or refusal
    said: list[str] = field(default_factory=list)
    logprobs: list[Object] = field(default_factory=list)

    @property
    def text(self) -> str:
        return "".join(self.said)

    def shape(self) -> Object:
        if self.kind == "refusal":
            return {"type": "refusal", "refusal": self.text}
        return {"type": "output_text", "text": self.text, "annotations": [], "logprobs": list(self.logprobs)}


@dataclass(eq=False)
class _Message:
    id: str
    parts: list[_Part] = field(default_factory=list)

    def shape(self, status: str) -> Object:
        content = [part.shape() for part in self.parts]
        return {"id": self.id, "type": "message", "role": "assistant", "status": status, "content": content}


@dataclass(eq=False)
class _Call:
    id: str
    call_id: str = ""
    name: str = ""
    said: list[str] = field(default_factory=list)

    @property
    def arguments(self) -> str:
        return "".join(self.said)

    def shape(self, status: str) -> Object:
        told = {"call_id": self.call_id, "name": self.name, "arguments": self.arguments}
        return {"id": self.id, "type": "function_call", "status": status, **told}


class Events:
    """The events of one streamed Response, made from the chunks of a chat completion.

    Call `start`, then `chunk` for each, then `finish` or `fail`, each once. All items stay open until then: chat may
    go back to its text after a call, and says nowhere that an item has ended. No chunk makes it raise.
    Source: OpenAI API reference, Responses, streaming events.
    """

    def __init__(self, request: Object, response_id: str, model: str, created: float) -> None:
        self._request, self._id, self._model, self._created = request, response_id, model, created
        self._stem = response_id.removeprefix("resp_")
        self._numbers = itertools.count()
        self._made: list[Object] = []
        self._items: list[_Message | _Call] = []  # as told to the client, in the order of output_index
        self._message: _Message | None = None
        self._calls: dict[int, _Call] = {}
        self._reason: str | None = None
        self._usage: Object | None = None

    def start(self) -> list[Object]:
        """Before the first chunk."""
        self._emit("response.created", response=self._response("in_progress"))
        self._emit("response.in_progress", response=self._response("in_progress"))
        return self._taken()

    def chunk(self, chunk: Object) -> list[Object]:
        """What one chunk adds; often one event, and none for a chunk that only bears usage."""
        self._usage = _usage(chunk.get("usage")) or self._usage
        for choice in _objects(chunk.get("choices")):
            if choice.get("index") not in (0, None):
                continue
            delta = _object(choice.get("delta"))
            logprobs = _logprobs(_object(choice.get("logprobs")).get("content"))
            self._say("output_text", _plain(delta.get("content")), logprobs)
            self._say("refusal", _plain(delta.get("refusal")), [])
            for call in _objects(delta.get("tool_calls")):
                self._call(call)
            reason = choice.get("finish_reason")
            self._reason = reason if isinstance(reason, str) else self._reason
        return self._taken()

    def finish(self) -> list[Object]:
        """After the last chunk: every item's end, and the whole Response."""
        if not self._items:
            self._open("output_text")  # clients look for a message, be it an empty one, to know that the turn is over
        status = "incomplete" if self._reason in _INCOMPLETE else "completed"
        response = self._response(status)
        for item, shape in zip(self._items, response["output"], strict=True):
            place = self._place(item)
            if isinstance(item, _Call):
                self._emit("response.function_call_arguments.done", **place, arguments=item.arguments)
            else:
                self._end_parts(item, place)
            self._emit("response.output_item.done", output_index=place["output_index"], item=shape)
        self._emit(f"response.{status}", response=response)
        return self._taken()

    def fail(self, message: str) -> list[Object]:
        """Instead of `finish` where the upstream broke off; what has come so far is in the Response."""
        error = {"code": "server_error", "message": message}
        self._emit("response.failed", response={**self._response("failed"), "error": error})
        return self._taken()

    def _say(self, kind: str, text: str, logprobs: list[Object]) -> None:
        if not text:
            return
        message, at = self._open(kind)
        message.parts[at].said.append(text)
        place = {**self._place(message), "content_index": at, "delta": text}
        if kind == "refusal":
            self._emit("response.refusal.delta", **place)
        else:
            message.parts[at].logprobs += logprobs
            self._emit("response.output_text.delta", **place, logprobs=logprobs)

    def _open(self, kind: str) -> tuple[_Message, int]:
        if self._message is None:
            self._message = _Message(f"msg_{self._stem}")
            self._add(self._message, self._message.shape("in_progress"))
        message = self._message
        for at, part in enumerate(message.parts):
            if part.kind == kind:
                return message, at
        message.parts.append(_Part(kind))
        at, part = len(message.parts) - 1, message.parts[-1]
        self._emit("response.content_part.added", **self._place(message), content_index=at, part=part.shape())
        return message, at

    def _call(self, said: Object) -> None:
        function = _object(said.get("function"))
        call = self._find_call(said.get("index"), said.get("id"))
        delta = _arguments(function.get("arguments"))
        call.said.append(delta)
        if call not in self._items:
            call.name = _plain(function.get("name"))
            call.call_id = call.call_id or _plain(said.get("id"))
            if not call.name:
                return  # an item is announced with its name; what has come of it waits
            if not call.call_id or any(call.call_id == i.call_id for i in self._items if isinstance(i, _Call)):
                call.call_id = f"call_{call.id.removeprefix('fc_')}"  # the results must find their call
            self._add(call, {**call.shape("in_progress"), "arguments": ""})
            delta = call.arguments
        if delta:
            self._emit("response.function_call_arguments.delta", **self._place(call), delta=delta)

    def _find_call(self, index: Any, call_id: Any) -> _Call:
        if not isinstance(index, int):
            # Some upstreams leave the index out: an id not seen before then begins a new call.
            index = max(self._calls, default=0)
            if call_id and index in self._calls:
                known = (n for n, call in self._calls.items() if call.call_id == call_id)
                index = next(known, index + 1)
        return self._calls.setdefault(index, _Call(f"fc_{self._stem}_{len(self._calls)}"))

    def _end_parts(self, message: _Message, place: Object) -> None:
        for at, part in enumerate(message.parts):
            where = {**place, "content_index": at}
            if part.kind == "refusal":
                self._emit("response.refusal.done", **where, refusal=part.text)
            else:
                self._emit("response.output_text.done", **where, text=part.text, logprobs=list(part.logprobs))
            self._emit("response.content_part.done", **where, part=part.shape())

    def _add(self, item: _Message | _Call, shape: Object) -> None:
        self._items.append(item)
        self._emit("response.output_item.added", output_index=len(self._items) - 1, item=shape)

    def _place(self, item: _Message | _Call) -> Object:
        return {"item_id": item.id, "output_index": self._items.index(item)}

    def _emit(self, kind: str, **fields: Any) -> None:
        self._made.append({"type": kind, "sequence_number": next(self._numbers), **fields})

    def _taken(self) -> list[Object]:
        made, self._made = self._made, []
        return made

    def _response(self, status: str) -> Object:
        # Chat writes one item after the other, so only the last can have been cut off.
        ends = ["completed"] * len(self._items)
        if ends and status != "completed":
            ends[-1] = "incomplete"
        return {
            "id": self._id,
            "object": "response",
            "created_at": self._created,
            "status": status,
            "model": self._model,
            "output": [item.shape(end) for item, end in zip(self._items, ends, strict=True)],
            "usage": self._usage,
            "error": None,
            "incomplete_details": {"reason": _INCOMPLETE[self._reason or ""]} if status == "incomplete" else None,
            **_echo(self._request),
        }


def _echo(request: Object) -> Object:
    """The settings that a Response repeats; where the client gave none, what stood in for them."""
    defaults: Object = {
        "instructions": None, "max_output_tokens": None, "metadata": {}, "parallel_tool_calls": True,
        "reasoning": None, "temperature": None, "text": {"format": {"type": "text"}}, "tool_choice": "auto",
        "tools": [], "top_logprobs": None, "top_p": None, "user": None,
    }  # fmt: skip
    told = {key: usual if request.get(key) is None else request[key] for key, usual in defaults.items()}
    return {**told, "background": False, "previous_response_id": None, "store": False, "truncation": "disabled"}


def _usage(said: Any) -> Object | None:
    """Token counts under their names here. The details are not optional in a Response, so they are 0 if unknown."""
    if not isinstance(said, dict):
        return None
    given, made = _count(said.get("prompt_tokens")), _count(said.get("completion_tokens"))
    cache = _object(said.get("prompt_tokens_details"))
    thought = _object(said.get("completion_tokens_details"))
    cached = {key: _count(cache.get(key)) for key in ("cached_tokens", "cache_write_tokens")}
    return {
        "input_tokens": given,
        "input_tokens_details": cached,
        "output_tokens": made,
        "output_tokens_details": {"reasoning_tokens": _count(thought.get("reasoning_tokens"))},
        "total_tokens": _count(said.get("total_tokens")) or given + made,
    }


def _logprobs(said: Any) -> list[Object]:
    return [{**_logprob(token), "top_logprobs": [_logprob(t) for t in _objects(token.get("top_logprobs"))]}
            for token in _objects(said)]  # fmt: skip


def _logprob(said: Object) -> Object:
    value, spelt = said.get("logprob"), said.get("bytes")
    return {
        "token": _plain(said.get("token")),
        "logprob": value if isinstance(value, int | float) else 0.0,
        "bytes": [_count(byte) for byte in spelt] if isinstance(spelt, list) else [],
    }


def _plain(said: Any) -> str:
    """Text as an upstream gives it; a few give it in parts."""
    if isinstance(said, list):
        return "".join(part["text"] for part in _objects(said) if isinstance(part.get("text"), str))
    return said if isinstance(said, str) else ""


def _arguments(said: Any) -> str:
    return json.dumps(said) if isinstance(said, dict) else _plain(said)


def _count(said: Any) -> int:
    return said if type(said) is int and said >= 0 else 0  # true and false are integers to isinstance


def _object(said: Any) -> Object:
    return said if isinstance(said, dict) else {}


def _objects(said: Any) -> list[Object]:
    return [entry for entry in said if isinstance(entry, dict)] if isinstance(said, list) else []
