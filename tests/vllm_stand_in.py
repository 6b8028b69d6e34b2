"""A real HTTP server that speaks vLLM's API for models, adapters and chat: a stand-in for a replica, dead and alive."""

from __future__ import annotations

import json
import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class _Server(ThreadingHTTPServer):
    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, *args: Any) -> None:
        self.open: set[socket.socket] = set()
        super().__init__(*args)

    def process_request(self, request: Any, client_address: Any) -> None:
        self.open.add(request)
        super().process_request(request, client_address)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that left, or the replica's own death."""


class Replica:
    """Answers with the names it has; forgets them when it dies."""

    def __init__(self, slots: int = 12) -> None:
        self.slots, self.delay_s, self.load_s = slots, 0.0, 0.0
        self.loaded: dict[str, str] = {}
        self.log: list[tuple[str, str]] = []  # (load, unload or chat; name)
        self.served: list[tuple[str, str]] = []  # (model, session) of what clients asked
        self.busy: set[str] = set()
        self.mute: set[str] = set()
        self.failing = 0  # so many calls that change something fail with 500
        self.status = 200  # of chat
        self.hang_s = 0.0  # of probes
        self.breaks_after: int | None = None  # so many words of a stream, its connection is cut
        self.lock = threading.Lock()
        self.sick = False
        self._server: _Server | None = None
        self.port = 0
        self.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Come up on the same port, empty."""
        self.loaded = {}
        self._server = _Server(("127.0.0.1", self.port), self._handler())
        self.port = int(self._server.server_address[1])
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def kill(self) -> None:
        """Die: the port refuses, connections are reset, answers break off."""
        server, self._server = self._server, None
        if server is None:
            return
        server.shutdown()
        server.server_close()
        for one in list(server.open):
            try:
                one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                one.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue

    def asked(self, model: str) -> int:
        """Requests of clients for that model."""
        return sum(name == model for name, _ in self.served)

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        replica = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: object) -> None:
                """Silent."""

            def send(self, status: int, body: Any) -> None:
                data = body.encode() if isinstance(body, str) else json.dumps(body).encode()
                self.send_response(status)
                self.send_header("content-length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def do_GET(self) -> None:
                if self.path == "/health":
                    self.send(503 if replica.sick else 200, "")
                elif self.path == "/metrics":
                    names = ",".join(sorted(replica.busy))
                    old = 'vllm:lora_requests_info{running_lora_adapters="gone",waiting_lora_adapters=""} 1.0\n'
                    now = f'vllm:lora_requests_info{{max_lora="2",running_lora_adapters="{names}"}} {time.time()}\n'
                    self.send(200, old + now)
                else:
                    rows = [{"id": "base", "root": "/models/base", "parent": None}]
                    rows += [{"id": n, "root": p, "parent": "base"} for n, p in replica.loaded.items()]
                    self.send(200, {"object": "list", "data": rows})

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                if self.path in ("/v1/load_lora_adapter", "/v1/unload_lora_adapter"):
                    with replica.lock:  # as vLLM: one change of a name at a time
                        self._adapter(body["lora_name"], body.get("lora_path"))
                else:
                    self._chat(body)

            def _adapter(self, name: str, path: str | None) -> None:
                if replica.failing > 0:
                    replica.failing -= 1
                    self.send(500, {"error": "told to fail"})
                elif (name in replica.loaded) == (path is not None):
                    self.send(400 if path else 404, {"error": f"{name}: loaded already, or not there"})
                elif path is not None:
                    time.sleep(replica.load_s)
                    replica.loaded[name] = path
                    replica.log.append(("load", name))
                    self.send(200, f"Success: LoRA adapter '{name}' added successfully.")
                else:
                    del replica.loaded[name]
                    replica.log.append(("unload", name))
                    self.send(200, "Success")

            def _chat(self, body: dict[str, Any]) -> None:
                model, said = body["model"], body["messages"][-1]["content"]
                if said == "hi" and body.get("max_tokens") == 1:
                    replica.log.append(("probe", model))
                    time.sleep(replica.hang_s)
                else:
                    replica.served.append((model, str(said)))
                time.sleep(replica.delay_s)
                if replica.status != 200:
                    self.send(replica.status, {"error": {"message": "told to"}})
                    return
                if model != "base" and (model not in replica.loaded or model in replica.mute):
                    self.send(404, {"error": {"message": f"The model `{model}` does not exist."}})
                    return
                usage = {"prompt_tokens": 3, "completion_tokens": 1, "total_tokens": 4}
                message = {"role": "assistant", "content": f"{model} at {replica.port}"}
                choice = {"index": 0, "message": message, "finish_reason": "stop"}
                if not body.get("stream"):
                    self.send(200, {"id": "x", "object": "chat.completion", "created": 1, "model": model,
                                    "choices": [choice], "usage": usage})  # fmt: skip
                    return
                self.send_response(200)
                self.send_header("content-type", "text/event-stream")
                self.send_header("transfer-encoding", "chunked")  # as vLLM: a stream that breaks off shows
                self.end_headers()
                head = {"id": "x", "object": "chat.completion.chunk", "created": 1, "model": model}
                for n, word in enumerate(("one ", "two ", "three")):
                    if n == replica.breaks_after:
                        self.close_connection = True
                        self.connection.shutdown(socket.SHUT_RDWR)
                        return
                    delta = {"index": 0, "delta": {"content": word}, "finish_reason": None}
                    self.event({**head, "choices": [delta]})
                    time.sleep(replica.delay_s / 4)
                self.event({**head, "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}], "usage": usage})
                self.event("[DONE]")
                self.wfile.write(b"0\r\n\r\n")

            def event(self, data: Any) -> None:
                line = b"data: " + (data if isinstance(data, str) else json.dumps(data)).encode() + b"\n\n"
                self.wfile.write(b"%x\r\n%b\r\n" % (len(line), line))
                self.wfile.flush()

        return Handler
