"""Starts the demo's servers, adopts ones that an interrupted demo left running, and ends them by their ids."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from pawl.errors import ResourceError, ServerNotUp


@dataclass
class Server:
    """One process in a session of its own, with its log and a record of its id on disk."""

    name: str
    command: list[str]
    health: str | Callable[[], bool]
    home: Path
    port: int | None = None
    env: dict[str, str] = field(default_factory=dict)
    ready_s: float = 180.0

    @property
    def log(self) -> Path:
        return self.home / "logs" / f"{self.name}.log"

    @property
    def record(self) -> Path:
        return self.home / "run" / f"{self.name}.json"

    def running(self) -> psutil.Process | None:
        """The process of an earlier start, if it is still that one."""
        try:
            known = json.loads(self.record.read_text())
            process = psutil.Process(known["pid"])
            same = abs(process.create_time() - known["created"]) < 1 and process.status() != psutil.STATUS_ZOMBIE
        except (OSError, ValueError, KeyError, psutil.Error):
            return None
        return process if same else None

    def start(self) -> None:
        """Start it, unless it runs already. ResourceError where something else has its port."""
        if self.running() is not None:
            return
        if self.port is not None:
            _demand_free(self.name, self.port)
        self.log.parent.mkdir(parents=True, exist_ok=True)
        self.record.parent.mkdir(parents=True, exist_ok=True)
        env = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"} | self.env
        with self.log.open("ab") as out:
            process = subprocess.Popen(
                self.command, stdout=out, stderr=out, stdin=subprocess.DEVNULL, env=env, start_new_session=True
            )
        created = psutil.Process(process.pid).create_time()
        self.record.write_text(json.dumps({"pid": process.pid, "created": created}))

    def ready(self) -> bool:
        """Whether it answers."""
        if callable(self.health):
            return self.health()
        try:
            with urllib.request.urlopen(self.health, timeout=2) as answer:  # noqa: S310 - loopback, our own
                return bool(answer.status == 200)
        except (urllib.error.URLError, OSError):
            return False

    def wait(self) -> None:
        """Until it answers. ServerNotUp with the end of its log when it died or takes too long."""
        end = time.monotonic() + self.ready_s
        while not self.ready():
            if self.running() is None:
                raise ServerNotUp(f"{self.name} ended while starting. The end of {self.log}:\n{self.tail()}")
            if time.monotonic() > end:
                raise ServerNotUp(f"{self.name} is not up after {self.ready_s:.0f} s. {self.log}:\n{self.tail()}")
            time.sleep(0.3)

    def tail(self, lines: int = 12) -> str:
        """The last lines of its log."""
        try:
            return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])
        except OSError:
            return "(no log)"

    def stop(self, grace_s: float = 15.0) -> None:
        """End the process and its children; kill what does not go in time."""
        process = self.running()
        if process is None:
            self.record.unlink(missing_ok=True)
            return
        family = [process, *process.children(recursive=True)]
        process.send_signal(signal.SIGTERM)
        _, alive = psutil.wait_procs([process], timeout=grace_s)
        _, alive = psutil.wait_procs([p for p in family if p.is_running()], timeout=2)
        for p in alive:
            p.kill()
        self.record.unlink(missing_ok=True)


def memory_mb(servers: list[Server]) -> float:
    """Resident memory of all servers, their children and this process; shared pages counted once (PSS)."""
    total = 0.0
    for root in [psutil.Process(), *[p for s in servers if (p := s.running())]]:
        for p in [root, *root.children(recursive=True)] if root.pid != os.getpid() else [root]:
            try:
                total += p.memory_full_info().pss
            except psutil.Error:
                continue
    return total / 2**20


def demand_machine(home: Path, memory_gb: float = 10.0, disk_gb: float = 6.0) -> None:
    """ResourceError where memory or disk will not last."""
    free = psutil.virtual_memory().available / 2**30
    if free < memory_gb:
        raise ResourceError(f"{free:.1f} GB of memory are free, the demo needs about {memory_gb:.0f}: close something")
    home.mkdir(parents=True, exist_ok=True)
    disk = psutil.disk_usage(str(home)).free / 2**30
    if disk < disk_gb:
        raise ResourceError(f"{disk:.1f} GB are free under {home}, the demo needs about {disk_gb:.0f}: make room")


def _demand_free(name: str, port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as e:
            raise ResourceError(
                f"port {port}, wanted by {name}, is taken by another program; end it, or set "
                f"PAWL_{name.replace('-', '').upper()}_PORT to a free one"
            ) from e


PYTHON = sys.executable
