"""Who listens on a port of this machine."""

from __future__ import annotations

import socket
import time

import psutil


def holder_of(port: int, host: str = "127.0.0.1") -> str | None:
    """Who holds the port, in words for people; None where it is free."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
            return None
        except OSError:
            pass
    pid = listener(port)
    return described(pid) if pid is not None else "a program of another user (`ss -ltnp`, as root, names it)"


def listener(port: int) -> int | None:
    """The process id that listens there, None where none is seen."""
    try:
        connections = psutil.net_connections(kind="tcp")
    except psutil.Error:
        return None
    pids = [c.pid for c in connections if c.status == psutil.CONN_LISTEN and c.laddr.port == port and c.pid]
    return min(pids) if pids else None


def described(pid: int) -> str:
    """Process id, command line and age."""
    try:
        process = psutil.Process(pid)
        line, age = " ".join(process.cmdline()) or process.name(), time.time() - process.create_time()
    except psutil.Error:
        return f"process {pid}"
    return f"process {pid} ({line[:160]}), running for {lasting(age)}"


def lasting(seconds: float) -> str:
    """A time span for people (pure): "40 s", "12 min", "3 h", "2 days"."""
    for size, name, up_to in ((1, "s", 90), (60, "min", 90), (3600, "h", 48)):
        if seconds / size < up_to:
            return f"{max(0, seconds) / size:.0f} {name}"
    return f"{seconds / 86400:.0f} days"
