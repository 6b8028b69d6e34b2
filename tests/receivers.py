"""A webhook and a mail server that keep what they were sent."""

from __future__ import annotations

import json
import socketserver
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any


class Webhook:
    """Answers 200 to POST; `got`: (Authorization, JSON body). While `refuse` is set, 503, and keeps nothing."""

    def __init__(self) -> None:
        self.got: list[tuple[str, Any]] = []
        self.refuse = False
        here = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *_: object) -> None:
                """Silent."""

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                if not here.refuse:
                    here.got.append((self.headers.get("authorization", ""), body))
                self.send_response(503 if here.refuse else 200)
                self.end_headers()

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = int(self.server.server_address[1])
        self.url = f"http://127.0.0.1:{self.port}/hook"
        Thread(target=self.server.serve_forever, daemon=True).start()

    @property
    def events(self) -> list[dict[str, Any]]:
        """Where it stands for Prefect's API."""
        return [event for _, sent in self.got for event in sent]

    def subjects(self) -> list[str]:
        return [str(body["subject"]) for _, body in self.got]


class Mailbox:
    """A mail server (RFC 5321, as much of it as one client says); `got`: (receivers, message)."""

    def __init__(self) -> None:
        self.got: list[tuple[list[str], str]] = []
        got = self.got

        class Handler(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                self.wfile.write(b"220 here\r\n")
                to: list[str] = []
                while line := self.rfile.readline().decode().strip():
                    verb = line.split(" ")[0].upper()
                    if verb == "RCPT":
                        to.append(line.partition(":")[2].strip(" <>"))
                    if verb == "DATA":
                        self.wfile.write(b"354 go on\r\n")
                        lines = iter(lambda: self.rfile.readline().decode().rstrip("\r\n"), ".")
                        got.append((to, "\n".join(lines)))
                    self.wfile.write(b"221 bye\r\n" if verb == "QUIT" else b"250 ok\r\n")
                    if verb == "QUIT":
                        return

        self.server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"smtp://127.0.0.1:{self.server.server_address[1]}"
        Thread(target=self.server.serve_forever, daemon=True).start()
