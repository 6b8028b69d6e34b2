"""Starts servers in the order of what they need, the slow ones beside each other; starts nothing that runs."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal

import msgspec

from pawl.errors import ConfigError, PawlError
from pawl.platform.process import Server
from pawl.platform.servers import ON_DEMAND, Platform, Step

State = Literal["started", "ran", "done", "was done", "failed", "not tried"]
BAD: tuple[State, ...] = ("failed", "not tried")


class Outcome(msgspec.Struct, frozen=True):
    """What became of one server or step. `ran`: it was up before, and was left alone."""

    name: str
    state: State
    seconds: float
    pid: int | None = None
    port: int | None = None
    url: str = ""
    log: str = ""
    why: str = ""


def chosen(
    platform: Platform, only: Collection[str] = (), without: Collection[str] = (), extra: Collection[str] = ()
) -> tuple[list[Server], list[Step]]:
    """The servers that are meant, and the steps that belong to them (pure). ConfigError where a name is unknown.

    Without `only`: all but those that one has to ask for. A step belongs where a chosen server needs it, or where all
    that it needs is chosen.
    """
    known = {s.name for s in platform.servers}
    problems = [
        f"{name} is elsewhere ({platform.elsewhere[name]})" if name in platform.elsewhere else
        f"{name} is not installed on this machine" if name in ON_DEMAND else
        f"there is no {name}; there are: {', '.join(s.name for s in platform.servers)}"
        for name in sorted({*only, *without, *extra} - known)
    ]  # fmt: skip
    if problems:
        raise ConfigError("the choice of servers", problems)
    wanted = {*only, *extra} if only else {n for n in known if n not in ON_DEMAND} | set(extra)
    servers = [s for s in platform.servers if s.name in wanted and s.name not in without]
    if servers and "log-keeper" not in without:
        servers = [s for s in platform.servers if s in servers or s.name == "log-keeper"]
    names = {s.name for s in servers}
    needed = {need for s in servers for need in s.needs}
    steps = [p for p in platform.steps if p.name in needed or (p.needs and set(p.needs) <= names)]
    return servers, steps


class Start:
    """One `pawl up`."""

    def __init__(self, home: Path, servers: list[Server], steps: list[Step], tell: Callable[[Outcome], None]) -> None:
        self._done = StepsDone(home)
        nodes: list[Server | Step] = [*steps, *servers]
        self._nodes = {n.name: n for n in nodes}
        self._tell = tell
        self._over = {name: threading.Event() for name in self._nodes}
        self._outcomes: dict[str, Outcome] = {}
        self._stopped = threading.Event()
        self.on_wait: Callable[[list[str]], None] = lambda names: None  # what is waited for, twice a second

    def waiting(self) -> list[str]:
        """What is not over yet."""
        return [name for name in self._nodes if name not in self._outcomes]

    def stop_waiting(self) -> None:
        """Give up; what was started goes on."""
        self._stopped.set()

    def run(self, *, wait: bool = True) -> list[Outcome]:
        """All outcomes, in the order in which they were over. `wait` False: only what others need is waited for."""
        needed = {need for n in self._nodes.values() for need in n.needs}
        with ThreadPoolExecutor(max(1, len(self._nodes))) as pool:
            for node in self._nodes.values():
                pool.submit(self._one, node, wait or node.name in needed)
            try:
                while left := self.waiting():
                    self.on_wait(left)
                    self._over[left[0]].wait(0.5)
            except KeyboardInterrupt:
                self.stop_waiting()
                raise
        return list(self._outcomes.values())

    def _one(self, node: Server | Step, wait: bool) -> None:
        began = time.monotonic()
        needs = [n for n in node.needs if n in self._nodes]
        try:
            for need in needs:
                while not self._over[need].wait(0.2):
                    if self._stopped.is_set():
                        raise PawlError("not waited for")
            missing = [n for n in needs if self._outcomes[n].state in BAD]
            if missing and not (isinstance(node, Server) and node.running()):
                made = Outcome(node.name, "not tried", 0.0, why=f"it needs {', '.join(missing)}")
            else:
                made = self._server(node, wait) if isinstance(node, Server) else self._step(node)
        except Exception as e:
            # Whatever it was: the others go on, and the exit code tells.
            said = str(e) if isinstance(e, PawlError) else f"{type(e).__name__}: {e}"
            made = Outcome(node.name, "failed", 0.0, why=said)
            if isinstance(node, Server):
                made = msgspec.structs.replace(made, log=str(node.log), port=node.port)
        made = msgspec.structs.replace(made, seconds=round(time.monotonic() - began, 1))
        self._outcomes[node.name] = made
        self._tell(made)
        self._over[node.name].set()

    def _server(self, server: Server, wait: bool) -> Outcome:
        fresh = server.start()
        if wait:
            server.wait(self._stopped.is_set)
        known = server.known()
        return Outcome(
            server.name, "started" if fresh else "ran", 0.0, known.pid if known else None, server.port, server.url,
            str(server.log),
        )  # fmt: skip

    def _step(self, step: Step) -> Outcome:
        if self._done.get(step.name) == step.done_as():
            return Outcome(step.name, "was done", 0.0)
        step.run()
        self._done.keep(step.name, step.done_as())
        return Outcome(step.name, "done", 0.0)


class StepsDone:
    """What each step was last done for; a file of this home."""

    def __init__(self, home: Path) -> None:
        self._path, self._lock = home / "run" / "steps.done", threading.Lock()

    def get(self, name: str) -> str | None:
        """None where it was not."""
        return self._read().get(name)

    def keep(self, name: str, done_as: str) -> None:
        """Remember it."""
        with self._lock:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            part = self._path.with_suffix(".part")
            part.write_bytes(msgspec.json.encode({**self._read(), name: done_as}))
            part.replace(self._path)

    def _read(self) -> dict[str, str]:
        try:
            return msgspec.json.decode(self._path.read_bytes(), type=dict[str, str])
        except (OSError, msgspec.DecodeError):
            return {}
