"""A real Envoy in a process of its own, two small servers behind it, and clients that send in numbers."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiohttp

from pawl.rollout.envoy_config import bootstrap, routes
from pawl.rollout.traffic import Shares
from pawl.rollout.traffic_envoy import EnvoyTraffic
from tests.ports import free_port
from tests.waiting import until

ENVOY = Path(sys.executable).with_name("envoy")
HEADER = "x-pawl-session"


class _Answers(asyncio.Protocol):
    """Says its name to every request, over a connection that stays."""

    def __init__(self, name: str) -> None:
        self._answer = f"HTTP/1.1 200 OK\r\ncontent-length: {len(name)}\r\n\r\n{name}".encode()
        self._rest = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: Any = transport

    def data_received(self, data: bytes) -> None:
        whole = (self._rest + data).split(b"\r\n\r\n")
        self._rest = whole.pop()
        for _ in whole:
            self._transport.write(self._answer)


class Backends:
    """Servers that answer their names, all in one thread."""

    def __init__(self, *names: str) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self.places = {name: ("127.0.0.1", self._do(self._serve(name))) for name in names}

    async def _serve(self, name: str) -> int:
        server = await self._loop.create_server(lambda: _Answers(name), "127.0.0.1", 0)
        return int(server.sockets[0].getsockname()[1])

    def _do(self, what: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(what, self._loop).result(10)

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)


class Envoy:
    """Started with the bootstrap and the routes that Pawl writes for a team."""

    def __init__(self, folder: Path, places: dict[str, tuple[str, int]], session_header: str | None = HEADER) -> None:
        """`places`: of the champion's and the challenger's cluster, in this order."""
        self.folder, self.port, self.admin_port = folder, free_port(), free_port()
        self.champion, self.challenger = places
        self.file = folder / "routes" / "agent.json"
        self.file.parent.mkdir(parents=True, exist_ok=True)
        self.first = routes("agent", self.champion, self.challenger, session_header, Shares(100, 0))
        self.file.write_text(json.dumps(self.first))
        self._config = folder / "bootstrap.json"
        whole = bootstrap("agent", self.file, listen=("127.0.0.1", self.port),
                          admin=("127.0.0.1", self.admin_port), clusters=places)  # fmt: skip
        self._config.write_text(json.dumps(whole))
        self.start()

    @property
    def admin(self) -> str:
        return f"http://127.0.0.1:{self.admin_port}"

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1/chat/completions"

    def traffic(self, within_s: float = 5.0) -> EnvoyTraffic:
        return EnvoyTraffic(
            self.file, self.admin, champion=self.champion, challenger=self.challenger, within_s=within_s
        )

    def start(self) -> None:
        command = [str(ENVOY), "--config-path", str(self._config), "--concurrency", "1", "--log-level", "warning"]
        command += ["--reject-unknown-dynamic-fields", "--disable-hot-restart"]
        with (self.folder / "envoy.log").open("ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log)
        end = time.monotonic() + 20
        while not self._live():
            assert self.process.poll() is None and time.monotonic() < end, self.log
            time.sleep(0.02)

    @property
    def log(self) -> str:
        return (self.folder / "envoy.log").read_text()

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def _live(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.admin}/ready", timeout=1) as answer:
                return answer.status == 200
        except OSError:
            return False


Answer = tuple[str, int, str]  # session, status, who answered


async def ask(url: str, sessions: list[str], at_once: int = 16) -> list[Answer]:
    """One request for each session; status 0 where there was no answer."""
    waiting, got = iter(sessions), []

    async def client(http: aiohttp.ClientSession) -> None:
        for session in waiting:
            try:
                async with http.get(url, headers={HEADER: session} if session else {}) as answer:
                    got.append((session, answer.status, await answer.text()))
            except aiohttp.ClientError as e:
                got.append((session, 0, str(e)))

    async with aiohttp.ClientSession() as http:
        await asyncio.gather(*(client(http) for _ in range(at_once)))
    return got


def asked(url: str, sessions: list[str]) -> dict[str, str]:
    """Who answered each session; every request must have been answered."""
    got = asyncio.run(ask(url, sessions))
    failed = [a for a in got if a[1] != 200]
    assert not failed and len(got) == len(sessions), failed[:5]
    return {session: who for session, _, who in got}


def share(url: str, who: str, requests: int) -> float:
    """The part of so many requests without a session that it answered."""
    got = asyncio.run(ask(url, [""] * requests))
    assert all(status == 200 for _, status, _ in got), [a for a in got if a[1] != 200][:5]
    return sum(by == who for _, _, by in got) / len(got)


class Load:
    """Clients that go on asking in a thread of their own until told to stop."""

    def __init__(self, url: str, at_once: int = 4) -> None:
        self._url, self._at_once, self._stop = url, at_once, threading.Event()
        self.got: list[tuple[float, Answer]] = []
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()))

    async def _run(self) -> None:
        n = 0
        while not self._stop.is_set():
            sessions = [f"s{n + k}" for k in range(50)]
            n += 50
            self.got += [(time.monotonic(), a) for a in await ask(self._url, sessions, self._at_once)]

    def __enter__(self) -> Load:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(30)

    def until(self, true: Callable[[], bool], seconds: float = 5) -> None:
        until(true, seconds, 0.02)
