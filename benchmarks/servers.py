"""Servers of a measurement: started on one core, frozen while it is another's turn, and always ended."""

from __future__ import annotations

import http.client
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil

# Nothing else of the caller's environment reaches a server: no proxies, no keys, no settings of another Pawl.
_PASSED_ON = ("PATH", "LANG", "LC_ALL", "TMPDIR", "LD_LIBRARY_PATH")
_END_WITHIN_S = 5.0


class Missing(Exception):
    """Something has to be installed first; the text says how."""


class Failed(Exception):
    """A server gave up, or a measurement cannot be trusted."""


@dataclass(frozen=True)
class Cores:
    """The gateway under measurement has one core to itself; load generator and stub share the other."""

    gateway: int
    load: int

    @classmethod
    def of_this_machine(cls) -> Cores:
        """The last core for the gateway: the first one takes most of the kernel's interrupts. Missing with one core."""
        cores = sorted(os.sched_getaffinity(0))
        if len(cores) < 2:
            raise Missing("this process may use one core only; the measurement needs two (see taskset)")
        return cls(gateway=cores[-1], load=cores[0])


@dataclass(frozen=True)
class Call:
    """How a client reaches a server: the port, whose key, and under which model name."""

    port: int
    model: str
    key: str = field(default="sk-none", repr=False)
    path: str = "/v1/chat/completions"

    def head(self, length: int) -> bytes:
        """The request's head for a body of that many bytes."""
        return (
            f"POST {self.path} HTTP/1.1\r\nhost: 127.0.0.1:{self.port}\r\ncontent-type: application/json\r\n"
            f"authorization: Bearer {self.key}\r\ncontent-length: {length}\r\n\r\n"
        ).encode()


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


def ask(
    port: int, method: str, path: str, body: bytes | None = None, key: str = "sk-none", timeout_s: float = 10.0
) -> tuple[int, bytes]:
    """(status, body) of one request. OSError or HTTPException where nobody answers."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout_s)
    try:
        connection.request(method, path, body, {"authorization": f"Bearer {key}", "content-type": "application/json"})
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def environment(home: Path, more: Mapping[str, str] | None = None) -> dict[str, str]:
    """The whole environment of a server."""
    kept = {k: os.environ[k] for k in _PASSED_ON if k in os.environ}
    return {**kept, "HOME": str(home), **(more or {})}


class Server:
    """A process and its children, in a session of its own."""

    def __init__(
        self, name: str, command: Sequence[str], core: int, folder: Path, env: Mapping[str, str] | None = None
    ) -> None:
        self.name, self.log = name, folder / f"{name}.log"
        # Should this process be killed, the kernel ends the server too, frozen or not.
        pinned = ["setpriv", "--pdeathsig", "KILL", "taskset", "--cpu-list", str(core), *command]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                pinned,
                env=environment(folder, env),
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def tail(self, lines: int = 15) -> str:
        """The end of its log."""
        text = self.log.read_text(errors="replace").splitlines()
        return "\n".join(f"  {self.name}| {line}" for line in text[-lines:])

    def failed(self, what: str) -> Failed:
        """The error that says so, with the end of the log."""
        return Failed(f"{self.name} {what}; the end of its log:\n{self.tail()}")

    def wait_for(self, port: int, path: str, within_s: float) -> None:
        """Until `GET path` answers 200. Failed where the process ends first, or time does."""
        end = time.monotonic() + within_s
        while time.monotonic() < end:
            if self.process.poll() is not None:
                raise self.failed(f"ended with code {self.process.returncode} instead of serving")
            try:
                if ask(port, "GET", path, timeout_s=2)[0] == 200:
                    return
            except (OSError, http.client.HTTPException):
                pass
            time.sleep(0.1)
        raise self.failed(f"does not answer GET {path} after {within_s:.0f} s")

    def processes(self) -> list[psutil.Process]:
        """It and all its descendants."""
        try:
            first = psutil.Process(self.process.pid)
            return [first, *first.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []

    def freeze(self) -> None:
        """Takes no time on any core until `thaw`."""
        self._tell(signal.SIGSTOP)

    def thaw(self) -> None:
        """Goes on."""
        self._tell(signal.SIGCONT)

    def cpu_s(self) -> float:
        """CPU seconds that it and its living children have used."""
        used = 0.0
        for process in self.processes():
            try:
                times = process.cpu_times()
                used += times.user + times.system
            except psutil.NoSuchProcess:
                continue
        return used

    def rss_mb(self) -> float:
        """Resident memory in MB (10^6 bytes) of it and its children."""
        rss = 0
        for process in self.processes():
            try:
                rss += process.memory_info().rss
            except psutil.NoSuchProcess:
                continue
        return rss / 1e6

    def _tell(self, number: signal.Signals) -> None:
        for process in self.processes():
            try:
                process.send_signal(number)
            except psutil.NoSuchProcess:
                continue


def end(servers: Iterable[Server]) -> None:
    """End them all: with SIGTERM, and those that do not hear with SIGKILL."""
    processes = [p for s in servers for p in s.processes()]
    for number in (signal.SIGCONT, signal.SIGTERM):
        for process in processes:
            try:
                process.send_signal(number)
            except psutil.NoSuchProcess:
                continue
    _, alive = psutil.wait_procs(processes, timeout=_END_WITHIN_S)
    for process in alive:
        try:
            process.kill()
        except psutil.NoSuchProcess:
            continue
    psutil.wait_procs(alive, timeout=_END_WITHIN_S)
