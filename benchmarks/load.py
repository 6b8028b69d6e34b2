"""The clients: wrk for requests a second, and plain sockets where one client's time or many streams are measured."""

from __future__ import annotations

import json
import re
import selectors
import shutil
import socket
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import psutil

from benchmarks.servers import Call, Failed, Missing

WRK_MISSING = (
    "wrk is not on the PATH. It is the load generator of this benchmark, a package of Debian and Ubuntu:\n"
    "  apt-get install wrk"
)
_SYSTEM = (
    "You are a careful tester of REST interfaces. You get one operation with the JSON Schema of its body, and answer "
    "with negative test cases only: bodies that the operation must refuse, each with the status it must refuse with. "
    "Cover missing fields, wrong types, broken limits, unknown values of an enumeration and formats that do not hold. "
    "Answer with one JSON object, `test_cases`, and nothing around it; at most six cases, no two alike."
)
_USER = (
    'POST /v1/orders orders.Create\n{"type":"object","required":["customer","lines"],"properties":{"customer":{"type":'
    '"string","minLength":3,"maxLength":40},"currency":{"enum":["EUR","USD","CHF"]},"note":{"type":"string",'
    '"maxLength":200},"lines":{"type":"array","minItems":1,"maxItems":50,"items":{"type":"object","required":["sku",'
    '"count"],"properties":{"sku":{"type":"string","pattern":"^[A-Z]{3}-[0-9]{4}$"},"count":{"type":"integer",'
    '"minimum":1,"maximum":999},"price":{"type":"number","exclusiveMinimum":0}}}},"ship_to":{"type":"object",'
    '"required":["country"],"properties":{"country":{"type":"string","minLength":2,"maxLength":2},"zip":{"type":'
    '"string"},"street":{"type":"string","minLength":1,"maxLength":120},"express":{"type":"boolean"}}},"gift":{"type":'
    '"boolean"}}}'
)
_LENGTH = re.compile(rb"(?i)\r\ncontent-length: *(\d+)")
_TIMEOUT_S = 30.0


def body_for(call: Call, stream_of: int = 0) -> bytes:
    """A chat request of about 1.5 KB, as compact JSON; `stream_of` > 0: streamed, in so many chunks."""
    messages = [{"role": "system", "content": _SYSTEM}, {"role": "user", "content": _USER}]
    body = {"model": call.model, "messages": messages, "temperature": 0.7, "max_tokens": stream_of or 192}
    return json.dumps(body | ({"stream": True} if stream_of else {}), separators=(",", ":")).encode()


@dataclass(frozen=True)
class WrkSaid:
    """What wrk counted over its whole run."""

    answered: int
    errors: dict[str, int]


class Wrk:
    """A run of wrk, begun by its construction."""

    def __init__(self, call: Call, clients: int, seconds: int, core: int, folder: Path) -> None:
        program = shutil.which("wrk")
        if program is None:
            raise Missing(WRK_MISSING)
        script = folder / "post.lua"
        script.write_text(_lua(call))
        command = ["taskset", "--cpu-list", str(core), program, "-t1", f"-c{clients}", f"-d{seconds}s"]
        command += ["--timeout", f"{_TIMEOUT_S:.0f}s", "-s", str(script), f"http://127.0.0.1:{call.port}{call.path}"]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def __enter__(self) -> Wrk:
        return self

    def __exit__(self, kind: type[BaseException] | None, e: BaseException | None, t: TracebackType | None) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.communicate()

    def cpu_s(self) -> float:
        """CPU seconds it has used."""
        times = psutil.Process(self._process.pid).cpu_times()
        return float(times.user + times.system)

    def said(self) -> WrkSaid:
        """Wait for its end. Failed where it gave no counts."""
        out, err = self._process.communicate(timeout=_TIMEOUT_S * 4)
        line = next((line for line in reversed(out.splitlines()) if line.startswith("{")), None)
        if self._process.returncode or line is None:
            raise Failed(f"wrk ended with code {self._process.returncode}: {(err or out)[-500:]}")
        counts = json.loads(line)
        return WrkSaid(counts.pop("requests"), {k: v for k, v in counts.items() if v})


def _lua(call: Call) -> str:
    """The script that has wrk send the request, and print its counts as JSON. `status` counts answers above 399."""
    fields = ("connect", "read", "write", "status", "timeout")
    template = ",".join(f'"{f}":%d' for f in fields)
    values = ", ".join(f"summary.errors.{f}" for f in fields)
    return f"""\
wrk.method = "POST"
wrk.body = [==[{body_for(call).decode()}]==]
wrk.headers["content-type"] = "application/json"
wrk.headers["authorization"] = "Bearer {call.key}"
function done(summary, latency, requests)
  io.write(string.format('{{"requests":%d,{template}}}\\n', summary.requests, {values}))
end
"""


class OneClient:
    """One keep-alive connection, one request at a time."""

    def __init__(self, call: Call, stream_of: int = 0) -> None:
        body = body_for(call, stream_of)
        self._request = call.head(len(body)) + body
        self._socket = _connect(call)

    def __enter__(self) -> OneClient:
        return self

    def __exit__(self, kind: type[BaseException] | None, e: BaseException | None, t: TracebackType | None) -> None:
        self._socket.close()

    def whole_ns(self) -> int:
        """Nanoseconds from sending a request to the end of its answer. Failed for all but 200."""
        begun = time.perf_counter_ns()
        self._socket.sendall(self._request)
        data = self._socket.recv(65536)
        while not _is_whole(data):
            data += self._more(data)
        return time.perf_counter_ns() - begun

    def first_token_ns(self) -> int:
        """Nanoseconds from sending a request to the first event of its stream. Failed for all but 200."""
        begun = time.perf_counter_ns()
        self._socket.sendall(self._request)
        data = self._socket.recv(65536)
        while b"\r\n\r\n" not in data or b"data: " not in data:
            data += self._more(data)
        took = time.perf_counter_ns() - begun
        while not _is_whole(data):
            data += self._more(data)
        return took

    def _more(self, so_far: bytes) -> bytes:
        data = self._socket.recv(65536)
        if not data:
            raise Failed(f"a connection was closed after {so_far[-200:]!r}")
        return data


class Streams:
    """Many streams at once, each on a connection of its own."""

    def __init__(self, call: Call, count: int, chunks: int) -> None:
        body = body_for(call, chunks)
        self._request, self._call, self.count = call.head(len(body)) + body, call, count
        self._selector = selectors.DefaultSelector()
        self._data: dict[socket.socket, bytes] = {}
        self.begun = self.ended = 0

    def __enter__(self) -> Streams:
        for _ in range(self.count):
            connection = _connect(self._call)
            self._selector.register(connection, selectors.EVENT_READ)
            self._data[connection] = b""
            connection.sendall(self._request)
            self.read(0)
        return self

    def __exit__(self, kind: type[BaseException] | None, e: BaseException | None, t: TracebackType | None) -> None:
        for connection in self._data:
            connection.close()
        self._selector.close()

    def read(self, wait_s: float) -> None:
        """Take in what has arrived. Failed where a stream is refused or breaks off."""
        for key, _ in self._selector.select(wait_s):
            connection = key.fileobj
            assert isinstance(connection, socket.socket)
            before, new = self._data[connection], connection.recv(65536)
            data = before + new
            if not new:
                raise Failed(f"stream was cut after {before[-200:]!r}")
            self.begun += b"data: " in data and b"data: " not in before
            self._data[connection] = data
            if _is_whole(data):
                if b"data: [DONE]" not in data:
                    raise Failed(f"stream ended without [DONE]: {data[-200:]!r}")
                self.ended += 1
                self._selector.unregister(connection)


def _connect(call: Call) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", call.port), timeout=_TIMEOUT_S)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def _is_whole(data: bytes) -> bool:
    """Whether `data` is a whole response. Failed for all but 200."""
    end = data.find(b"\r\n\r\n")
    if end < 0:
        return False
    if not data.startswith(b"HTTP/1.1 200 "):
        raise Failed(f"answered {data[:400]!r}")
    length = _LENGTH.search(data, 0, end)
    if length:
        return len(data) >= end + 4 + int(length[1])
    return data.endswith(b"0\r\n\r\n")
