"""What this machine has left for a training: memory by the kernel and by control groups, disk, processors."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import msgspec
import psutil

_CGROUPS = Path("/sys/fs/cgroup")
_OWN = Path("/proc/self/cgroup")
_NO_LIMIT = 1 << 60  # version 1 writes a number as large as this where there is none


class Gpu(msgspec.Struct, frozen=True, kw_only=True):
    """The GPUs of this machine, all taken as like the first."""

    name: str
    count: int
    free: int  # bytes, of the first
    total: int


class Machine(msgspec.Struct, frozen=True, kw_only=True):
    """What is free now; bytes."""

    memory_free: int  # the lesser of what the kernel has and what the control group leaves
    memory_total: int
    memory_limited: bool  # a control group's limit is the lesser
    disk_free: int
    cores: int  # that this process may use
    half: bool = False  # computes in bfloat16
    gpu: Gpu | None = None


def machine(home: Path) -> Machine:
    """This machine as it is now, without its GPU. `home`: where the run writes, or will."""
    seen = psutil.virtual_memory()
    limited = cgroup_free(_CGROUPS, _OWN.read_text() if _OWN.exists() else "")
    free = int(seen.available)
    folder = next(p for p in (home.absolute(), *home.absolute().parents) if p.exists())
    return Machine(
        memory_free=free if limited is None else min(free, limited),
        memory_total=int(seen.total),
        memory_limited=limited is not None and limited < free,
        disk_free=shutil.disk_usage(folder).free,
        cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
    )


def cgroup_free(root: Path, own: str) -> int | None:
    """Bytes until this process's control group, or one above it, is full; None without a limit.

    `root`: where the groups are mounted. `own`: /proc/self/cgroup. Cached files count as free: the kernel drops them
    first. Versions 1 and 2.
    """
    found: list[int] = []
    for line in own.splitlines():
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if number == "0" and not controllers:
            found += _limits(root, path, ("memory.max", "memory.current", "inactive_file"))
        elif "memory" in controllers.split(","):
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
            found += _limits(root / "memory", path, names)
    return min(found, default=None)


def _limits(root: Path, path: str, names: tuple[str, str, str]) -> list[int]:
    """Of the group and all above it. In a container only the root itself may be visible."""
    limit, usage, cached = names
    parts = [p for p in path.split("/") if p not in ("", "..")]
    found = []
    for depth in range(len(parts), -1, -1):
        folder = root.joinpath(*parts[:depth])
        most, used = _number(folder / limit), _number(folder / usage)
        if most is not None and used is not None and most < _NO_LIMIT:
            found.append(max(0, most - used + _row(folder / "memory.stat", cached)))
    return found


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):  # "max"
        return None


def _row(path: Path, name: str) -> int:
    try:
        rows = dict(row.split(maxsplit=1) for row in path.read_text().splitlines() if " " in row)
        return int(rows.get(name, 0))
    except (OSError, ValueError):
        return 0
