"""Whether what is kept is whole and cared for: facts in, findings out (pure)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pawl.platform.findings import Finding, fail, ok, warn
from pawl.platform.listeners import lasting
from pawl.rollout.control import Request
from pawl.serving.desired import Lease

LAG_WARN_S, LAG_FAIL_S = 3 * 3600.0, 24 * 3600.0  # the alert of the same name begins at three hours
_LONG_LEASE_S = 4 * 3600.0  # a lease is for half an hour


def fleet(where: str, problems: Sequence[str], agents: int) -> list[Finding]:
    """The specification."""
    if problems:
        said = f"{where}: {'; '.join(problems[:3])}{' ...' if len(problems) > 3 else ''}"
        return [fail("fleet.yaml", said, "`pawl fleet check` lists each problem with its line")]
    return [ok("fleet.yaml", f"{where}: {agents} agent(s)")]


def control(where: str, damage: str | None, schema: tuple[str, str] | None, audit: str | None) -> list[Finding]:
    """The control database: what its own check says, its schema's revision and the one that is wanted where they
    differ, and what is wrong with the audit log's chain. None: nothing wrong."""
    if damage:
        todo = "stop the gateway, keep a copy, and put the last backup in its place (docs/deploying.md, Backups)"
        return [fail("control database", f"{where}: {damage}", todo)]
    if schema:
        said = f"{where} has schema {schema[0]}, this Pawl wants {schema[1]}"
        todo = "`pawl database upgrade`; a SQLite file is also brought up, and copied first, by the next start"
        return [warn("control database", said, todo)]
    if audit:
        todo = "somebody changed what was logged: keep the file as it is and find out who (docs/runbooks/key-leak.md)"
        return [fail("audit log", audit, todo)]
    return [ok("control database", where), ok("audit log", "its chain is whole")]


def journal(
    oldest: float | None, segments: int, orphaned: int, damaged: Mapping[str, int], now: float
) -> list[Finding]:
    """What waits for the lake. `oldest`: when the oldest segment was last written; `orphaned`: open segments whose
    writer is gone; `damaged`: file -> lines that nobody can read."""
    found = []
    lag = max(0.0, now - oldest) if oldest is not None else 0.0
    if lag > LAG_WARN_S:
        said = f"the oldest of {segments} segments has waited for {lasting(lag)}"
        todo = "`pawl lake ingest` takes it in now; see why collect-feedback does not run (docs/runbooks/lake-lag.md)"
        found.append((fail if lag > LAG_FAIL_S else warn)("journal", said, todo, "ingest"))
    if orphaned:
        said = f"{orphaned} segment(s) of writers that were killed"
        found.append(warn("journal", said, "nothing is lost: the next `pawl lake ingest` takes them in", "ingest"))
    if damaged:
        lines = sum(damaged.values())
        said = f"{lines} line(s) of {len(damaged)} file(s) could not be read: {', '.join(sorted(damaged)[:3])}"
        todo = "test the disk; the lines are kept aside beside the journal, look whether they can be mended by hand"
        found.append(warn("journal", said, todo))
    said = f"{segments} segment(s) wait, the oldest for {lasting(lag)}" if segments else "empty"
    return found or [ok("journal", said)]


def leases(held: Sequence[Lease], now: float) -> list[Finding]:
    """Adapters that somebody asked for."""
    stale = [one for one in held if one.until <= now]
    long = [one for one in held if one.until > now + _LONG_LEASE_S]
    found = []
    if stale:
        said = f"{len(stale)} ended and were not given back: {', '.join(one.name for one in stale[:3])}"
        found.append(warn("leases", said, "whoever held them was killed; they keep no room", "leases"))
    if long:
        said = f"{', '.join(one.name for one in long)} for {lasting(long[0].until - now)}"
        found.append(warn("leases", said, "nobody asks for so long: was the clock set back?"))
    return found or [ok("leases", f"{len(held)} held")]


def approvals(waiting: Sequence[Request], now: float) -> list[Finding]:
    """Versions that wait for a person. `waiting`: neither closed nor led to a rollout."""
    found = []
    for r in waiting:
        told = f"{r.agent} version {r.version}"
        if now >= r.expires:
            todo = f"`pawl approvals renew {r.agent} {r.version}`, or reject it"
            found.append(warn("approvals", f"{told} waited and expired {lasting(now - r.expires)} ago", todo))
        elif r.expires - now < 86400:
            todo = f"`pawl approve {r.agent} {r.version}`, after reading its report"
            found.append(warn("approvals", f"{told} expires in {lasting(r.expires - now)}", todo))
    return found or [ok("approvals", f"{len(waiting)} wait")]


def aliases(rows: Sequence[tuple[str, str, str, str]]) -> list[Finding]:
    """Where MLflow's aliases point: (agent, alias, what promotion let it name, what it names)."""
    found = [
        fail("aliases", f"{agent}@{alias} names version {there or 'none'} and should name {meant or 'none'}",
             "the next roll-out run puts it back; `pawl audit show` may say who moved it")
        for agent, alias, meant, there in rows if meant != there
    ]  # fmt: skip
    return found or [ok("aliases", f"{len(rows)} point where promotion let them")]


def models(
    base: str, base_problem: str | None, adapters: Mapping[str, str | None], needed: Sequence[str]
) -> list[Finding]:
    """Files of models. `base`: "" where the base model is not on this machine. `adapters`: name -> what is wrong with
    its files, None where they are what its name says."""
    found = []
    if not base:
        todo = "`pawl up` and `pawl base` make or fetch it; where all of vLLM is elsewhere it is not needed"
        found.append(warn("models", "the base model is not on this machine", todo))
    if base_problem:
        todo = f"stop vLLM, delete {base}, run `pawl base`; a folder of your own: copy it again"
        found.append(fail("models", f"the base model: {base_problem}", todo))
    for name, problem in adapters.items():
        if problem:
            grave = name in needed
            todo = "restore its folder from a copy, or from MLflow with `pawl restore`"
            said = f"{name}{', which serves' if grave else ''}: {problem}"
            found.append(fail("models", said, todo) if grave else warn("models", said, todo))
    missing = [n for n in needed if n not in adapters]
    found += [fail("models", f"{n} serves and its files are not here", "`pawl restore` fetches it") for n in missing]
    return found or [ok("models", f"the base model and {len(adapters)} adapter(s) are what their names say")]
