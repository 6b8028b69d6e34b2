"""STAND-IN for a cloud model: an OpenAI-compatible server on loopback that writes reference answers.

It is no language model. It builds test cases by explicit mutations, waits as long as a cloud model would, and makes a
realistic share of mistakes. Its token counts are estimates (characters / 4).
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import math
import random
import time
from typing import Any

import orjson
import uvicorn

from pawl.errors import SourceError
from pawl.gateway.wire import Receive, Refused, Scope, Send, read_json, send_json
from pawl.qe import reference
from pawl.qe.functional_negative import parse_task

MODEL = "stand-in"


class StandIn:
    """The ASGI application. The same seed and prompt always give the same answer."""

    def __init__(self, seed: int, faulty: float, latency_s: float) -> None:
        self._seed, self._faulty, self._latency_s = seed, faulty, latency_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            for kind in ("startup", "shutdown"):
                await receive()
                await send({"type": f"lifespan.{kind}.complete"})
            return
        try:
            place = (scope["method"], scope["path"])
            if place == ("GET", "/healthz"):
                await send_json(send, 200, {"status": "ok", "what": "a stand-in for a cloud model"})
            elif place == ("GET", "/v1/models"):
                model = {"id": MODEL, "object": "model", "created": 0, "owned_by": "pawl stand-in"}
                await send_json(send, 200, {"object": "list", "data": [model]})
            elif place == ("POST", "/v1/chat/completions"):
                await self._complete(await read_json(receive), send)
            else:
                raise Refused(404, f"the stand-in has no {place[0]} {place[1]}")
        except Refused as e:
            await send_json(send, e.status, e.body())

    async def _complete(self, body: dict[str, Any], send: Send) -> None:
        messages = body.get("messages") or []
        prompt = orjson.dumps(messages)
        rng = random.Random(hashlib.sha256(f"{self._seed}".encode() + prompt).digest())
        try:
            text = reference.answer(parse_task(messages).schema, rng, self._faulty)
        except SourceError as e:
            raise Refused(400, f"the stand-in only knows its own task: {e}") from e
        await asyncio.sleep(self._latency_s * rng.uniform(0.5, 1.5))
        usage = {"prompt_tokens": math.ceil(len(prompt) / 4), "completion_tokens": math.ceil(len(text) / 4)}
        usage["total_tokens"] = sum(usage.values())
        base = {
            "id": f"chatcmpl-standin-{rng.getrandbits(64):016x}",
            "created": int(time.time()),
            "model": MODEL,
            "system_fingerprint": "stand-in-not-a-language-model",
        }
        if not body.get("stream"):
            choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
            await send_json(send, 200, {**base, "object": "chat.completion", "choices": [choice], "usage": usage})
            return
        headers = [(b"content-type", b"text/event-stream")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        deltas: list[tuple[dict[str, str], str | None]] = [({"role": "assistant", "content": ""}, None)]
        deltas += [({"content": text[i : i + 16]}, None) for i in range(0, len(text), 16)]
        for delta, end in [*deltas, ({}, "stop")]:
            choice = {"index": 0, "delta": delta, "finish_reason": end}
            await _event(send, orjson.dumps({**base, "object": "chat.completion.chunk", "choices": [choice]}))
        if (body.get("stream_options") or {}).get("include_usage"):
            last = {**base, "object": "chat.completion.chunk", "choices": [], "usage": usage}
            await _event(send, orjson.dumps(last))
        await _event(send, b"[DONE]", more=False)


async def _event(send: Send, data: bytes, *, more: bool = True) -> None:
    await send({"type": "http.response.body", "body": b"data: " + data + b"\n\n", "more_body": more})


def main() -> None:
    """`python -m pawl.qe.standin --port 8730`."""
    parser = argparse.ArgumentParser(prog="pawl.qe.standin", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1", help="address to bind to (default: loopback)")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--seed", type=int, default=7, help="another seed gives other answers")
    parser.add_argument("--faulty", type=float, default=0.15, help="share of faulty answers, 0..1")
    parser.add_argument("--latency-ms", type=float, default=400.0, help="mean time to an answer")
    given = parser.parse_args()
    app = StandIn(given.seed, given.faulty, given.latency_ms / 1000)
    uvicorn.run(app, host=given.host, port=given.port, log_level="warning", access_log=False, http="httptools")


if __name__ == "__main__":
    main()
