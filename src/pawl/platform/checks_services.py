"""Whether the servers answer in the right version, and Prefect does what prefect.yaml says: facts in, findings out
(pure)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from pawl.platform.findings import Finding, fail, ok, warn
from pawl.platform.listeners import lasting

PENDING_S, LATE_S, RUNNING_S = 600.0, 300.0, 12 * 3600.0
LEARNING_S = 40 * 3600.0  # preparing may take 4 hours, training 24, the evaluation 8, each tried again
QUEUED = "AwaitingConcurrencySlot"


def answers(name: str, url: str, version: str | None, installed: str | None, why: str = "") -> list[Finding]:
    """A server's version, None where it does not answer; and the version of its client here."""
    check = f"{name} answers"
    if version is None:
        return [fail(check, f"{url} does not answer: {why}", f"`pawl logs {name.lower()}`, `pawl up`")]
    if installed is not None and version != installed:
        said = f"{url} runs {version}, installed here is {installed}"
        return [warn(check, said, "start it again with the installed version, or install its version here")]
    return [ok(check, f"{url}, version {version}")]


class Deployment(msgspec.Struct, frozen=True):
    """What counts of a deployment. `schedules`: as `schedule_of` writes them."""

    flow: str
    name: str
    entrypoint: str
    parameters: Mapping[str, Any]
    schedules: frozenset[tuple[str, str]]
    pool: str
    off: bool = False  # somebody paused it, or one of its schedules


def meant(tree: Mapping[str, Any]) -> list[Deployment]:
    """The deployments of prefect.yaml."""
    return [
        Deployment(
            flow=d["entrypoint"].rpartition(":")[2].replace("_", "-"),
            name=d["name"],
            entrypoint=d["entrypoint"],
            parameters=d.get("parameters") or {},
            schedules=frozenset(schedule_of(s) for s in d.get("schedules") or []),
            pool=(d.get("work_pool") or {}).get("name", ""),
        )
        for d in tree.get("deployments", [])
    ]


def schedule_of(given: Mapping[str, Any]) -> tuple[str, str]:
    """One schedule and its time zone, "" where the environment fills it in or none is named."""
    if "cron" in given:
        zone = str(given.get("timezone") or "")
        return f"cron {given['cron']}", "" if "{{" in zone else zone
    if "interval" in given:
        return f"every {float(given['interval']):g} s", ""
    return f"rrule {given.get('rrule', '')}", ""


def deployments(wanted: Sequence[Deployment], found: Sequence[Deployment]) -> list[Finding]:
    """What Prefect has beside what prefect.yaml says."""
    todo, there, said = "`prefect deploy --all`", {(d.flow, d.name): d for d in found}, []
    for d in wanted:
        at = there.get((d.flow, d.name))
        told = f"{d.flow}/{d.name}"
        if at is None:
            said.append(fail("deployments", f"{told} is not in Prefect", todo, "deploy"))
            continue
        open_ones = {k for k, v in d.parameters.items() if "{{" in str(v)}
        other = [
            name for name, differs in (
                ("entrypoint", at.entrypoint != d.entrypoint),
                ("parameters", {k: v for k, v in at.parameters.items() if k not in open_ones}
                 != {k: v for k, v in d.parameters.items() if k not in open_ones}),
                ("schedule", not _same(d.schedules, at.schedules)),
                ("work pool", at.pool != d.pool),
            ) if differs
        ]  # fmt: skip
        if other:
            said.append(fail("deployments", f"{told} differs from prefect.yaml: {', '.join(other)}", todo, "deploy"))
        if at.off:
            said.append(warn("deployments", f"{told} is paused", "unpause it in Prefect's UI, if nobody meant it"))
    mine = {(d.flow, d.name) for d in wanted}
    said += [
        warn("deployments", f"{d.flow}/{d.name} is not in prefect.yaml (any more)", "delete it in Prefect's UI")
        for d in found
        if (d.flow, d.name) not in mine and d.entrypoint.startswith("flows/")
    ]
    return said or [ok("deployments", f"{len(wanted)} as prefect.yaml has them")]


def _same(wanted: frozenset[tuple[str, str]], found: frozenset[tuple[str, str]]) -> bool:
    """A time zone counts only where prefect.yaml names one itself."""
    return {s for s, _ in wanted} == {s for s, _ in found} and all(not z or (s, z) in found for s, z in wanted)


class Run(msgspec.Struct, frozen=True):
    """A flow run that has not ended."""

    name: str
    flow: str
    state: str  # "Running", "Pending", "Late" ...
    since: float  # epoch seconds; for one that is late or waits for another, when it was due


def runs(rows: Sequence[Run], now: float) -> list[Finding]:
    """Runs that do not get on."""
    what = {
        "Pending": ("pending", "its process did not start: `pawl logs worker`; then cancel it"),
        "Late": ("late", "no worker takes it: is one online, is the pool's limit reached?"),
        "Running": ("running", "look at it in Prefect's UI; cancel it where its process is gone"),
        "Cancelling": ("cancelling", "its worker is gone: `pawl up` starts one, or set it to Cancelled in the UI"),
        QUEUED: ("waiting for the run before", "look at the one that it waits for; cancel either in Prefect's UI"),
    }
    found = []
    for state, (word, todo) in what.items():
        stuck = [r for r in rows if r.state == state and now - r.since > _limit(r)]
        if stuck:
            oldest = min(stuck, key=lambda r: r.since)
            said = f"{len(stuck)} {word} for more than {lasting(_limit(oldest))}: {oldest.flow}/{oldest.name}" + (
                " ..." if len(stuck) > 1 else ""
            )
            found.append(warn("flow runs", said, todo))
    return found or [ok("flow runs", f"{sum(r.state == 'Running' for r in rows)} running, none stuck")]


def _limit(run: Run) -> float:
    """Seconds that a run may be in its state. What waits for another run waits as long as that one may take."""
    at_work = LEARNING_S if run.flow.startswith("improve-") else RUNNING_S
    return {"Late": LATE_S, "Running": at_work, QUEUED: at_work}.get(run.state, PENDING_S)


def pool(name: str, exists: bool, paused: bool, online: int) -> list[Finding]:
    """The work pool and its workers."""
    if not exists:
        return [fail("work pool", f"there is no pool {name}", "`pawl up --only prefect,worker` makes it", "deploy")]
    if paused:
        return [fail("work pool", f"{name} is paused: nothing runs", "resume it in Prefect's UI")]
    if not online:
        return [fail("work pool", f"{name} has no worker: nothing runs", "`pawl up --only worker`")]
    return [ok("work pool", f"{name}, {online} worker(s) online")]


def adapters(unneeded: Sequence[str], missing: Mapping[str, Sequence[str]], down: Sequence[str]) -> list[Finding]:
    """The serving cluster. `missing`: adapter -> replicas that lack it."""
    found = [
        fail("adapters", f"{name} is missing on {', '.join(on)}", "docs/runbooks/replica-down.md, step 4")
        for name, on in missing.items()
        if on
    ]
    if unneeded:
        todo = "the gateway unloads its own when they are idle; others: POST /v1/unload_lora_adapter"
        found.append(warn("adapters", f"loaded for nobody: {', '.join(unneeded)}", todo))
    if not found and down:
        return [warn("adapters", f"{', '.join(down)} cannot be asked", "docs/runbooks/replica-down.md")]
    return found or [ok("adapters", f"{len(missing)} named, all where they must be")]
