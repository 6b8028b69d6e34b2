"""The month's report on money and independence, from what is recorded: lake, control database, registry, files."""

from __future__ import annotations

import datetime as dt
import hashlib
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from pawl import bootstrap
from pawl.errors import ConfigError, PawlError
from pawl.fleet.clouds import cloud_of
from pawl.fleet.spec import FleetSpec
from pawl.lake.records import TABLES, Interaction
from pawl.monitoring.independence import CloudUsed, Independence, Service, lines_of, outlook, share_bounds
from pawl.monitoring.month_duckdb import CloudPrice, summed
from pawl.monitoring.month_facts import Domain, Memory, Month, Scope
from pawl.monitoring.month_prometheus import watched
from pawl.monitoring.months import bounds_of, present_and_last, zone_of
from pawl.monitoring.phases import Phase, phases
from pawl.monitoring.pricing import paid, unpriced
from pawl.monitoring.service_level import service_of
from pawl.rollout.control import ControlStore
from pawl.settings import Settings

if TYPE_CHECKING:
    from pawl.lake.parquet_lake import ParquetLake

EXPERIMENT = "Monthly reports"  # no agent can have that name
_WEIGHTS = (".safetensors", ".bin", ".gguf")


class MonthlyReport(msgspec.Struct, frozen=True, kw_only=True):
    """The figures and what they mean for the four phases."""

    v: int = 1
    generated_at: float  # epoch seconds
    figures: Independence
    phases: tuple[Phase, ...]

    def digest(self) -> str:
        """sha256 of what is said, whenever it was computed."""
        said = msgspec.json.encode((self.figures, self.phases), order="deterministic")
        return hashlib.sha256(said).hexdigest()


def report(settings: Settings, month: str | None, agent: str = "", *, registry: bool = True) -> MonthlyReport:
    """The report of a month ("2026-11", in the settings' time zone; None: `usual_month`), of the fleet or one agent.

    `registry` False: adapters that learnt from several agents are not looked for. PawlError for a month that is none,
    or has not begun; LakeError where the lake cannot be read.
    """
    now, zone = time.time(), zone_of(settings.timezone)
    fleet, control, lake = bootstrap.fleet(settings), bootstrap.control(settings), bootstrap.lake(settings)
    month, since, until = bounds_of(month or usual_month(lake, now, zone), now, zone)
    clouds, notes = clouds_of(fleet), []
    known = sorted({a.name for a in fleet.agents} | set(lake.agents()))
    if agent and agent not in known:
        raise PawlError(f"no agent {agent!r} is in fleet.yaml or the lake; there are: {', '.join(known)}")
    by_name = {
        c.upstream: CloudPrice(bootstrap.upstream_arm(fleet, c.upstream).name, c.prompt, c.completion) for c in clouds
    }
    first_cloud = cloud_of(fleet, "")
    facts = summed(
        lake,
        since,
        until,
        clouds={a.name: by_name[c] for a in fleet.agents if (c := cloud_of(fleet, a.name)) is not None},
        default=by_name[first_cloud] if first_cloud else None,
        base_names=_base_names(fleet),
        share_bounds=share_bounds,
        zone=zone,
    )
    begin, end = _begin(lake, facts, since), min(until, now)
    hours = max(0.0, end - begin) / 3600 if facts.first is not None else 0.0
    outlay, by_token = paid(fleet)
    fleet_line, lines = lines_of(facts, outlay.usd_in(hours) if outlay else None, by_token)
    line = next((x for x in lines if x.name == agent), None) if agent else fleet_line
    if line is None:
        line = msgspec.structs.replace(lines_of(Month(fleet=Scope(name=agent)), None)[0], name=agent)
    domains, problem = _domains(settings, fleet, agent) if registry else ((), "MLflow was not asked")
    notes += [f"Adapters that learnt from several agents were not looked for ({problem})."] if problem else []
    service, problem = _service(settings, agent, begin, end, line.sessions)
    notes += [problem] if problem else []
    why_not = unpriced(fleet)
    used = [c for c in clouds if not agent or agent in c.agents]
    figures = Independence(
        month=month,
        since=since,
        until=until,
        timezone=settings.timezone,
        whole=until <= now,
        agent=agent,
        clouds=tuple(used),
        stand_in=any(c.stand_in for c in used),
        line=line,
        service=service,
        agents=tuple(x for x in lines if not agent or x.name == agent),
        workflows=() if agent else facts.workflows,
        facts=facts,
        machines_usd=outlay.usd_in(hours) if outlay else None,
        by_token=by_token,
        hours=hours,
        even=None if agent or why_not else outlook(fleet_line, outlay, hours),
        memory=adapter_memory(settings, fleet, control),
        domains=domains,
        notes=tuple(notes),
        unpriced=why_not,
    )
    return MonthlyReport(generated_at=now, figures=figures, phases=phases(figures))


def usual_month(lake: ParquetLake, now: float, zone: dt.tzinfo = dt.UTC) -> str:
    """The last month that is over in the time zone where anything of it is recorded, else the present one."""
    this, last = present_and_last(now, zone)
    _, low, high = bounds_of(last, now, zone)
    held = any(
        o.table == TABLES[Interaction] and o.first < high and o.last >= low for o in lake.manifest().objects
    ) or any(isinstance(r, Interaction) and low <= r.at < high for r in lake.pending())
    return last if held else this


def clouds_of(fleet: FleetSpec) -> tuple[CloudUsed, ...]:
    """The clouds that agents are measured against, with their agents."""
    by_cloud: dict[str, list[str]] = {}
    for a in fleet.agents:
        if (name := cloud_of(fleet, a.name)) is not None:
            by_cloud.setdefault(name, []).append(a.name)
    return tuple(
        CloudUsed(
            upstream=name,
            model=(spec := fleet.upstreams[name]).model or name,
            stand_in=spec.stand_in,
            prompt=spec.usd_per_million_prompt or 0.0,
            completion=spec.usd_per_million_completion or 0.0,
            agents=tuple(agents),
        )
        for name, agents in by_cloud.items()
    )


def adapter_memory(settings: Settings, fleet: FleetSpec, control: ControlStore) -> Memory | None:
    """Weight files of the adapters that are champions now, and of the base model; None without a base model here."""
    from pawl.training.adapter_check import base_at_hand

    folder = base_at_hand(fleet.base_model, settings.models_dir)
    if folder is None:
        return None
    names = {r.champion.name for r in control.routes() if r.champion.kind == "local"} - set(_base_names(fleet))
    folders = {n: settings.adapters_dir / n for n in sorted(names)}
    return Memory(base=_weights(folder), adapters={n: _weights(f) for n, f in folders.items() if f.is_dir()})


def metrics_of(made: MonthlyReport) -> dict[str, float]:
    """The figures by the names that MLflow has them under."""
    r, found = made.figures, dict[str, float]()
    line = r.line
    named = {
        "share_local": line.local, "share_fallback": line.fallback, "availability": r.availability,
        "saved_usd": None if r.unpriced else line.saved, "latency_p50_s": r.p50, "latency_p95_s": r.p95,
        "saved_share": None if r.unpriced else line.saved_share,
        **{f"quality_ratio_{kind}": figure for kind, figure in line.quality.items()},
    }  # fmt: skip
    for name, figure in named.items():
        if figure is not None:
            found |= {name: figure.value, f"{name}_lower": figure.lower, f"{name}_upper": figure.upper}
    found |= {
        "answered": float(line.answered), "failed": float(line.failed), "cost_usd": line.cost_usd,
        "all_cloud_usd": line.all_cloud_usd, "shadow_usd": line.shadow_usd, "cloud_usd": line.cloud_usd,
    }  # fmt: skip
    if line.cost_per_call is not None:
        found["cost_per_call_usd"] = line.cost_per_call
    for x in r.agents:
        if x.cost_per_call is not None:
            found[f"cost_per_call_usd/{x.name}"] = x.cost_per_call
    if r.even is not None and r.even.months is not None:
        found["months_to_break_even"] = r.even.months
    for p in made.phases:
        slug = p.name.lower().replace("-", "_")
        found[f"{slug}_green"] = float(sum(c.state == "green" for c in p.criteria))
        found[f"{slug}_red"] = float(sum(c.state == "red" for c in p.criteria))
    inf = float("inf")
    return {k: v for k, v in found.items() if -inf < v < inf}


def log(settings: Settings, made: MonthlyReport, page: Path) -> str:
    """The report as a run of MLflow with its figures and the page; the same report again is the same run. A link."""
    r = made.figures
    whose = f" {r.agent}" if r.agent else ""
    params = {"month": r.month, "agent": r.agent or "all", "whole": str(r.whole), "stand_in": str(r.stand_in)}
    params |= {f"phase/{p.name}": p.verdict for p in made.phases}
    criteria = [(p.name, c) for p in made.phases for c in p.criteria]
    table: dict[str, list[Any]] = {
        "phase": [name for name, _ in criteria],
        "criterion": [c.name for _, c in criteria],
        "wanted": [c.wanted for _, c in criteria],
        "state": [c.state for _, c in criteria],
        "value": [c.figure.value if c.figure else None for _, c in criteria],
        "why": [c.why for _, c in criteria],
    }
    return bootstrap.registry(settings).log_run(
        EXPERIMENT,
        f"independence {r.month}{whose}",
        key=f"{r.month}{whose} {made.digest()}",
        params=params,
        metrics=metrics_of(made),
        files={"report.html": page},
        tables={"criteria.json": table},
    )


def _begin(lake: ParquetLake, facts: Month, since: float) -> float:
    """From when on anything could be recorded: the month's begin, or the lake's first record where that came later."""
    held = [o.first for o in lake.manifest().objects if o.table == TABLES[Interaction]]
    return max(since, min([facts.first, *held])) if facts.first is not None else since


def _service(settings: Settings, agent: str, since: float, until: float, sessions: int) -> tuple[Service | None, str]:
    """What Prometheus has of the time; and why it has nothing, where somebody said that there is one."""
    if not sessions:
        return None, ""
    try:
        seen = watched(settings.prometheus_url, since, until, agent)
    except PawlError as e:
        return None, f"Availability and latency are not by Prometheus: {e}." if settings.prometheus_address else ""
    return (service_of(seen, sessions), "") if seen is not None and seen.told else (None, "")


def _base_names(fleet: FleetSpec) -> tuple[str, ...]:
    """What arms of the base model itself, or of other local models that are no adapter, are called."""
    local = [u.model for u in fleet.upstreams.values() if u.kind == "local" and u.model]
    return (fleet.base_model.served_name, *local)


def _weights(folder: Path) -> int:
    return sum(p.stat().st_size for p in folder.iterdir() if p.suffix in _WEIGHTS)


def _domains(settings: Settings, fleet: FleetSpec, agent: str) -> tuple[tuple[Domain, ...], str]:
    """The newest adapter of each agent that learnt from others too, by its recorded comparison; and what went wrong."""
    from pawl.improvement.continuing import judged
    from pawl.improvement.workplace import Workplace
    from pawl.registry.mlflow_experiments import demand_up

    found = []
    try:
        demand_up(settings.mlflow_url, "listing versions")
        registry = bootstrap.registry(settings)
        for name in (a.name for a in fleet.agents if not agent or a.name == agent):
            others = tuple(f"{a.name}-v" for a in fleet.agents if a.name != name)
            for v in registry.versions(name):
                told = f"{v.tags.get('averaged_with', '')},{v.tags.get('parent', '')}"
                if not any(arm.strip().startswith(others) for arm in told.split(",")):
                    continue
                comparison = judged(Workplace(settings, name), v.number)
                if comparison is not None and comparison.ratio is not None:
                    found.append(Domain(agent=name, adapter=v.adapter, ratio=comparison.ratio, items=comparison.pairs))
                    break
    except ConfigError:
        raise
    except PawlError as e:
        return (), str(e)
    return tuple(found), ""
