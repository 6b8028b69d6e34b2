"""A stand-in for a cloud model, on loopback: OpenAI's wire format, reference answers with some faults.

It is no language model. It answers prompts of the built-in task by explicit mutations (see `reference`), so that the
whole loop can be shown and tested without a provider, its key and its bill. Every place where it shows says so.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import random
import time
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import orjson

from pawl.errors import SourceError
from pawl.qe.functional_negative import reference
from pawl.qe.operations.prompt import parsed

MODEL = "stand-in"
FINGERPRINT = "pawl-stand-in-not-a-model"
_MAX_BODY = 4 * 1024 * 1024
_CHUNK_CHARS = 24

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]


class Behaviour(msgspec.Struct, frozen=True, kw_only=True):
    """How the stand-in answers. Latency is milliseconds to the first byte."""

    seed: int = 0
    faulty: float = 0.15
    latency_ms: float = 400.0


class Refused(Exception):
    """A request that is answered with an error of OpenAI's form."""

    def __init__(self, status: int, message: str) -> None:
        self.status = status
        super().__init__(message)


def reply(messages: list[dict[str, Any]], behaviour: Behaviour) -> str:
    """The answer to a prompt: the same for the same seed and prompt.

    Raises:
        SourceError: the prompt is not of a task that it knows.
    """
    key = orjson.dumps([behaviour.seed, messages], option=orjson.OPT_SORT_KEYS)
    rng = random.Random(hashlib.sha256(key).digest())
    return reference.answer(parsed(messages).schema, rng, behaviour.faulty)


def estimate_tokens(text: str) -> int:
    """Tokens by the rule of thumb of four characters each; the stand-in has no tokenizer."""
    return -(-len(text) // 4)


def app(behaviour: Behaviour) -> Callable[[Scope, Receive, Send], Awaitable[None]]:
    """The ASGI application: /v1/chat/completions, /v1/models, /healthz."""

    async def serve(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await _lifespan(receive, send)
            return
        if scope["type"] != "http":
            return
        try:
            await _route(scope, receive, send, behaviour)
        except Refused as refused:
            await _json(send, refused.status, {"error": {"message": str(refused), "type": "invalid_request_error"}})

    return serve


async def _route(scope: Scope, receive: Receive, send: Send, behaviour: Behaviour) -> None:
    at = (scope["method"], scope["path"])
    if at == ("GET", "/healthz"):
        await _json(send, 200, {"status": "ok", "stand_in": True})
    elif at == ("GET", "/v1/models"):
        model = {"id": MODEL, "object": "model", "created": 0, "owned_by": FINGERPRINT}
        await _json(send, 200, {"object": "list", "data": [model]})
    elif at == ("POST", "/v1/chat/completions"):
        await _complete(await _body(receive), send, behaviour)
    else:
        raise Refused(404, f"the stand-in does not serve {at[0]} {at[1]}")


async def _complete(request: dict[str, Any], send: Send, behaviour: Behaviour) -> None:
    messages = request.get("messages")
    if not isinstance(messages, list) or not all(isinstance(m, dict) for m in messages):
        raise Refused(400, "`messages` must be a list of messages")
    try:
        text = reply(messages, behaviour)
    except SourceError as error:
        raise Refused(400, f"the stand-in only knows the built-in tasks: {error}") from error
    limit = request.get("max_completion_tokens") or request.get("max_tokens")
    finish = "stop"
    if isinstance(limit, int) and 0 < limit < estimate_tokens(text):
        text, finish = text[: limit * 4], "length"
    prompt = estimate_tokens("".join(str(m.get("content", "")) for m in messages))
    completion = estimate_tokens(text)
    usage = {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "estimated": "stand-in: characters / 4",
    }
    head = {
        "id": "chatcmpl-standin-" + random.randbytes(8).hex(),
        "created": int(time.time()),
        "model": MODEL,
        "system_fingerprint": FINGERPRINT,
    }
    await asyncio.sleep(behaviour.latency_ms / 1000)
    if request.get("stream"):
        options = request.get("stream_options")
        told = usage if isinstance(options, dict) and options.get("include_usage") else None
        await _stream(send, head, text, finish, told)
        return
    message = {"role": "assistant", "content": text, "refusal": None}
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": finish}
    await _json(send, 200, {**head, "object": "chat.completion", "choices": [choice], "usage": usage})


async def _stream(send: Send, head: dict[str, Any], text: str, finish: str, usage: dict[str, Any] | None) -> None:
    head = {**head, "object": "chat.completion.chunk"}
    deltas: list[dict[str, Any]] = [{"role": "assistant", "content": ""}]
    deltas += [{"content": text[i : i + _CHUNK_CHARS]} for i in range(0, len(text), _CHUNK_CHARS)]
    headers = [(b"content-type", b"text/event-stream"), (b"cache-control", b"no-cache")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    chunks = [{**head, "choices": [{"index": 0, "delta": d, "finish_reason": None}]} for d in deltas]
    chunks.append({**head, "choices": [{"index": 0, "delta": {}, "finish_reason": finish}]})
    if usage is not None:
        chunks.append({**head, "choices": [], "usage": usage})
    for chunk in chunks:
        await send({"type": "http.response.body", "body": b"data: %b\n\n" % orjson.dumps(chunk), "more_body": True})
    await send({"type": "http.response.body", "body": b"data: [DONE]\n\n"})


async def _body(receive: Receive) -> dict[str, Any]:
    data = b""
    while True:
        event = await receive()
        data += event.get("body", b"")
        if len(data) > _MAX_BODY:
            raise Refused(413, "the request is too large")
        if not event.get("more_body"):
            break
    try:
        request = orjson.loads(data)
    except ValueError as error:
        raise Refused(400, f"the request is not JSON: {error}") from error
    if not isinstance(request, dict):
        raise Refused(400, "the request must be a JSON object")
    return request


async def _json(send: Send, status: int, body: dict[str, Any]) -> None:
    data = orjson.dumps(body)
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(data)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": data})


async def _lifespan(receive: Receive, send: Send) -> None:
    while True:
        event = await receive()
        await send({"type": f"{event['type']}.complete"})
        if event["type"] == "lifespan.shutdown":
            return


def main(argv: list[str] | None = None) -> None:
    """Serve until stopped."""
    parser = argparse.ArgumentParser(
        prog="python -m pawl.qe.standin",
        description="A STAND-IN for a cloud model (no language model): OpenAI's wire format, reference answers.",
    )
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--seed", type=int, default=0, help="answers are the same for the same seed and prompt")
    parser.add_argument("--faulty", type=float, default=0.15, help="share of answers with a realistic fault")
    parser.add_argument("--latency-ms", type=float, default=400.0, help="time to the first byte")
    given = parser.parse_args(argv)
    if not 0 <= given.faulty <= 1:
        parser.error("--faulty must lie in 0..1")
    import uvicorn

    behaviour = Behaviour(seed=given.seed, faulty=given.faulty, latency_ms=max(given.latency_ms, 0.0))
    uvicorn.run(app(behaviour), host=given.host, port=given.port, log_level="warning", access_log=False)


if __name__ == "__main__":
    main()
