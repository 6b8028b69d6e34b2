"""A real, small HTTP server that speaks the OpenAI API, and does as a test tells it."""

from __future__ import annotations

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Upstream:
    """Speaks the OpenAI API; says what it was asked, and fails where it is told to."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, dict[str, Any], dict[str, str]]] = []
        self.answers: dict[str, str] = {}
        self.failing: set[str] = set()
        self.breaking: set[str] = set()
        self.statuses: dict[str, list[tuple[int, dict[str, str]]]] = {}  # model -> answers to give first
        self.calls: dict[str, list[dict[str, Any]]] = {}  # model -> tool calls of its answer
        self.delay_s = 0.0
        self.delays: dict[str, float] = {}  # by model, instead of it
        upstream = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: object) -> None:
                """Silent."""

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                upstream.asked.append((self.path, body, dict(self.headers)))
                upstream.answer(self, body)

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    @property
    def port(self) -> int:
        return int(self.server.server_address[1])

    def models(self) -> list[str]:
        """The models that were asked, in order."""
        return [body["model"] for _, body, _ in self.asked]

    def answer(self, handler: BaseHTTPRequestHandler, body: dict[str, Any]) -> None:
        model = body["model"]
        time.sleep(self.delays.get(model, self.delay_s))
        if self.statuses.get(model):
            status, headers = self.statuses[model].pop(0)
            self._send(handler, status, {"error": {"message": "told to"}}, headers)
            return
        if model in self.failing:
            self._send(handler, 500, {"error": {"message": "told to fail"}})
            return
        usage = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
        if handler.path.endswith("/embeddings"):
            rows = [{"object": "embedding", "index": 0, "embedding": [0.5, 0.25]}]
            self._send(handler, 200, {"object": "list", "data": rows, "model": model, "usage": {"prompt_tokens": 3}})
            return
        text = self.answers.get(model, f"I am {model}")
        chat = handler.path.endswith("/chat/completions")
        if not body.get("stream"):
            self._send(handler, 200, self._whole(model, text, body, chat) | {"usage": usage})
            return
        handler.send_response(200)
        handler.send_header("content-type", "text/event-stream")
        handler.send_header("connection", "close")
        handler.end_headers()
        base = {"id": "up-1", "object": "chat.completion.chunk" if chat else "text_completion", "created": 1}
        base["model"] = model
        for n, word in enumerate(text.split(" ")):
            if model in self.breaking and n == 1:
                return
            word = word if n == 0 else f" {word}"
            part = {"delta": {"content": word}} if chat else {"text": word}
            self._event(handler, {**base, "choices": [{"index": 0, **part, "finish_reason": None}]})
        for call in self._calls(model, body):
            begun = call | {"function": call["function"] | {"arguments": ""}}
            rest = {"index": call["index"], "function": {"arguments": call["function"]["arguments"]}}
            for piece in (begun, rest):
                delta = {"tool_calls": [piece]}
                self._event(handler, {**base, "choices": [{"index": 0, "delta": delta, "finish_reason": None}]})
        end = {"delta": {}} if chat else {"text": ""}
        self._event(handler, {**base, "choices": [{"index": 0, **end, "finish_reason": "stop"}]})
        if (body.get("stream_options") or {}).get("include_usage"):
            self._event(handler, {**base, "choices": [], "usage": usage})
        handler.wfile.write(b"data: [DONE]\n\n")

    def _whole(self, model: str, text: str, body: dict[str, Any], chat: bool) -> dict[str, Any]:
        choices = []
        wanted = body.get("n")
        for n in range(wanted if isinstance(wanted, int) and 0 < wanted < 9 else 1):
            choice: dict[str, Any] = {"index": n, "finish_reason": "stop", "logprobs": None}
            if body.get("logprobs"):
                choice["logprobs"] = {"content": [{"token": "I", "logprob": -0.5, "bytes": [73], "top_logprobs": []}]}
            if chat:
                choice["message"] = {"role": "assistant", "content": text}
                if calls := self._calls(model, body):
                    choice["message"]["tool_calls"] = [{k: v for k, v in c.items() if k != "index"} for c in calls]
                    choice["finish_reason"] = "tool_calls"
            else:
                choice["text"] = text
            choices.append(choice)
        kind = "chat.completion" if chat else "text_completion"
        return {"id": "up-1", "object": kind, "created": 1, "model": model, "choices": choices}

    def _calls(self, model: str, body: dict[str, Any]) -> list[dict[str, Any]]:
        if not body.get("tools"):
            return []
        return [{"index": n, "type": "function", **call} for n, call in enumerate(self.calls.get(model, []))]

    @staticmethod
    def _event(handler: BaseHTTPRequestHandler, data: dict[str, Any]) -> None:
        handler.wfile.write(b"data: " + json.dumps(data).encode() + b"\n\n")
        handler.wfile.flush()

    @staticmethod
    def _send(
        handler: BaseHTTPRequestHandler, status: int, body: dict[str, Any], headers: dict[str, str] | None = None
    ) -> None:
        data = json.dumps(body).encode()
        handler.send_response(status)
        for name, value in (headers or {}).items():
            handler.send_header(name, value)
        handler.send_header("content-type", "application/json")
        handler.send_header("content-length", str(len(data)))
        handler.end_headers()
        handler.wfile.write(data)
