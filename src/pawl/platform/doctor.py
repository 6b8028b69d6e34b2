"""Looks at everything that may be wrong, beside each other and within a time limit each; mends what is safe to mend."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from urllib.error import HTTPError

from pawl import bootstrap
from pawl.errors import PawlError
from pawl.fleet.spec import FleetSpec
from pawl.platform import facts_machine, facts_record, facts_services, prefect_server
from pawl.platform.findings import Finding, fail, warn
from pawl.platform.process import Server, recorded
from pawl.platform.servers import ON_DEMAND, platform
from pawl.platform.standing import Standing
from pawl.settings import Settings

WITHIN_S = 20.0


@dataclass(frozen=True)
class Check:
    """One thing that is looked at. `of`: the server that it asks; `anyway`: also one that does not answer."""

    name: str
    look: Callable[[], list[Finding]]
    of: str = ""
    anyway: bool = False
    logs: tuple[str, ...] = ()  # whose logs say why that server answers with an error of its own


def checks(settings: Settings, spec: FleetSpec | None, seen: list[Standing], servers: list[Server]) -> list[Check]:
    """All of them, but the fleet's own."""
    logs = logs_of_prefect(settings)
    return [
        Check("versions", lambda: facts_machine.versions(settings)),
        Check("servers", lambda: facts_machine.running(seen)),
        Check("home", lambda: facts_machine.home(settings)),
        Check("disk", lambda: facts_machine.disk(settings)),
        Check("memory", lambda: facts_machine.memory(seen)),
        Check("open files", lambda: facts_machine.descriptors(servers)),
        Check("sandbox", lambda: facts_machine.kept_in(spec)),
        Check("clock", lambda: facts_machine.clock(settings)),
        Check("tcmalloc", facts_machine.allocator),
        Check("permissions", lambda: facts_machine.permissions(settings)),
        Check("control database", lambda: facts_record.control(settings)),
        Check("journal", lambda: facts_record.journal(settings)),
        Check("leases", lambda: facts_record.leases(settings)),
        Check("approvals", lambda: facts_record.approvals(settings)),
        Check("models", lambda: facts_record.models(settings, spec)),
        Check("MLflow answers", lambda: facts_services.mlflow(settings), "mlflow", anyway=True),
        Check("Prefect answers", lambda: facts_services.prefect(settings, logs), "prefect", anyway=True),
        Check("vLLM answers", lambda: facts_services.vllm(settings, spec), "vllm", anyway=True),
        Check("deployments", lambda: facts_services.deployments(settings), "prefect", logs=logs),
        Check("flow runs", lambda: facts_services.runs(settings, time.time()), "prefect", logs=logs),
        Check("work pool", lambda: facts_services.pool(settings), "prefect", logs=logs),
        Check(
            "aliases",
            lambda: facts_services.aliases(settings, spec),
            "mlflow",
            logs=_here("mlflow", settings.mlflow_address),
        ),
        Check("adapters", lambda: facts_services.adapters(settings, spec), "vllm"),
    ]


def logs_of_prefect(settings: Settings) -> tuple[str, ...]:
    """The logs that say why Prefect stumbles: its own, and its database's where that is a server of this machine."""
    own = _here("prefect", settings.prefect_address)
    return (*own, "postgres") if own and settings.prefect_database != "sqlite" else own


def _here(server: str, elsewhere: str | None) -> tuple[str, ...]:
    return () if elsewhere else (server,)


def examine(settings: Settings, tell: Callable[[str], None], within_s: float = WITHIN_S) -> list[Finding]:
    """All findings. `tell` hears what is still looked at."""
    spec, findings = facts_record.fleet(settings)
    started = {s.name: s for s in recorded(settings.home)}
    meant = list(platform(settings, spec).servers) if spec else list(started.values())
    servers = [s for s in meant if s.name in started or s.name not in ON_DEMAND]
    seen = facts_machine.stand(servers)
    # A server that is not up is one finding, not one for each thing that would be asked of it.
    off, mute = ({s.name for s in seen if s.state in states} for states in (("off",), ("down", "busy", "off")))
    these = [c for c in checks(settings, spec, seen, servers) if c.of not in (off if c.anyway else mute)]
    return findings + all_of(these, tell, within_s)


def all_of(these: Sequence[Check], tell: Callable[[str], None], within_s: float) -> list[Finding]:
    """Their findings in their order. What hangs is a finding; it does not hold up the others, nor the end."""
    found: dict[str, list[Finding]] = {}

    def look(check: Check) -> None:
        try:
            found[check.name] = check.look()
        except (PawlError, OSError) as e:
            found[check.name] = [fail(check.name, f"cannot be looked at: {e}", _todo(check, e))]
        except Exception as e:
            found[check.name] = [fail(check.name, f"{type(e).__name__}: {e}", "tell us: that is a fault of this check")]

    # Daemons: a process may end while one of them waits for ever.
    threads = {c.name: threading.Thread(target=look, args=(c,), daemon=True) for c in these}
    for thread in threads.values():
        thread.start()
    end = time.monotonic() + within_s
    while (left := [n for n in threads if n not in found]) and time.monotonic() < end:
        tell(", ".join(left))
        threads[left[0]].join(0.2)
    late = f"no answer within {within_s:.0f} s"
    todo = "what it asks hangs: see that server's log; `pawl doctor --within 60` waits longer"
    # To read large files takes its time; a server does not.
    return [f for c in these for f in found.get(c.name, [(fail if c.of else warn)(c.name, late, todo)])]


def _todo(check: Check, error: Exception) -> str:
    """Who answers with an error of its own is not asked in the wrong way: its log says why."""
    if isinstance(error, HTTPError) and error.code >= 500:
        said = ", ".join(f"`pawl logs {name}`" for name in check.logs)
        return f"it stumbles itself: {said or 'look at its log'}"
    return "mend that, then ask again"


def fixes(settings: Settings) -> dict[str, Callable[[], object]]:
    """What may be mended without asking: it loses nothing and can be repeated."""
    return {
        "permissions": lambda: facts_machine.close(settings),
        "ingest": lambda: bootstrap.lake(settings).ingest(),
        "leases": lambda: facts_record.drop_leases(settings),
        "deploy": lambda: prefect_server.deploy(settings, settings.root.resolve()),
    }


def mend(settings: Settings, findings: Sequence[Finding], tell: Callable[[str], None]) -> int:
    """Do what the findings name; how many were done. One that fails is told and found again."""
    done = 0
    known = fixes(settings)
    for name in dict.fromkeys(f.fix for f in findings if f.fix in known):
        tell(name)
        try:
            known[name]()
            done += 1
        except (PawlError, OSError) as e:
            tell(f"{name} could not be mended: {e}")
    return done
