"""How the servers of this machine stand: what runs, since when, how large, how often it had to be started again."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Literal

import msgspec
import psutil

from pawl.platform.listeners import lasting
from pawl.platform.process import Server


class Standing(msgspec.Struct, frozen=True):
    """One server. `up`: it runs and answers; `busy`: it runs and does not answer; `down`: it was started and is gone;
    `off`: it was not started."""

    name: str
    state: Literal["up", "busy", "down", "off"]
    pid: int | None = None
    since: float | None = None  # epoch seconds
    memory_mb: float | None = None  # with its children, shared pages counted once
    port: int | None = None
    restarts: int = 0
    url: str = ""


def standings(servers: Sequence[Server]) -> list[Standing]:
    """Look at each; a server that hangs costs two seconds."""
    with ThreadPoolExecutor(max(1, len(servers))) as pool:
        return list(pool.map(_standing, servers))


def _standing(server: Server) -> Standing:
    known, process = server.known(), server.running()
    if known is None:
        return Standing(server.name, "off", port=server.port, url=server.url)
    restarts = max(0, known.starts - 1)
    if process is None:
        return Standing(server.name, "down", since=known.at, port=server.port, restarts=restarts, url=server.url)
    state: Literal["up", "busy"] = "up" if server.ready() else "busy"
    return Standing(
        server.name, state, known.pid, known.at, memory_mb(process), known.port, restarts, known.url or server.url
    )


def memory_mb(process: psutil.Process) -> float:
    """Resident memory of a process and its children in MiB, shared pages counted once (PSS)."""
    total = 0.0
    try:
        family = [process, *process.children(recursive=True)]
    except psutil.Error:
        return 0.0
    for one in family:
        try:
            total += one.memory_full_info().pss
        except (psutil.Error, AttributeError):
            continue
    return round(total / 2**20, 1)


def told(standings: Sequence[Standing], now: float) -> list[str]:
    """For people (pure)."""
    lines = [f"servers: {sum(s.state == 'up' for s in standings)} of {len(standings)} up"]
    words = {"up": "up", "busy": "RUNS, DOES NOT ANSWER", "down": "DOWN", "off": "not started"}
    for s in standings:
        parts = [f"  {s.name:11} {words[s.state]}"]
        if s.state in ("up", "busy") and s.since is not None:
            parts.append(f"for {lasting(now - s.since)}, pid {s.pid}, {s.memory_mb or 0:.0f} MB")
        if s.restarts:
            parts.append(f"started again {s.restarts} time{'s' * (s.restarts > 1)}")
        if s.url:
            parts.append(s.url)
        lines.append("  ".join(parts))
    return lines
