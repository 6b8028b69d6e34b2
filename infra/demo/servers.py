"""What the demo asks of the machine, and what its servers take of it. How they are started: `pawl.platform`."""

from __future__ import annotations

import os
from pathlib import Path

import psutil

from pawl.errors import ResourceError
from pawl.platform.process import PYTHON, Server

__all__ = ["PYTHON", "Server", "demand_machine", "memory_mb"]


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
