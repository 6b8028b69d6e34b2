"""`pawl status`: the servers of this machine, who serves each agent, rollouts, approvals that wait, and the cluster as
it must be and as it is."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer

from pawl import bootstrap
from pawl.fleet.spec import FleetSpec
from pawl.rollout.control import ControlStore
from pawl.serving.cluster_state import ClusterState, compared, looked_at
from pawl.settings import Settings

if TYPE_CHECKING:
    from pawl.platform.standing import Standing


def status(
    as_json: Annotated[bool, typer.Option("--json", help="one JSON object on stdout")] = False,
) -> None:
    """The servers of this machine, what serves each agent, open rollouts, approvals that wait, every adapter's place.

    A server is up (runs and answers), runs without answering, is down (it was started and is gone), or not started.
    """
    from pawl.platform.standing import told as told_servers

    settings = Settings()
    fleet, control = bootstrap.fleet(settings), bootstrap.control(settings)
    wanted = bootstrap.needs(settings, fleet, control)
    servers = _servers(settings, fleet)
    cluster = compared(wanted, looked_at(bootstrap.replicas(settings, fleet)()), settings.vllm_cpu_loras)
    agents = [_agent(fleet, control, name) for name in (a.name for a in fleet.agents)]
    if as_json:
        typer.echo(msgspec.json.encode({"servers": servers, "agents": agents, "cluster": cluster}))
        return
    for line in told_servers(servers, time.time()):
        typer.echo(line)
    for agent in agents:
        _tell(agent)
    for line in told(cluster):
        typer.echo(line)


def _servers(settings: Settings, fleet: FleetSpec) -> list[Standing]:
    from pawl.platform.process import recorded
    from pawl.platform.servers import ON_DEMAND, platform
    from pawl.platform.standing import standings

    started = {s.name: s for s in recorded(settings.home)}
    meant = [s for s in platform(settings, fleet).servers if s.name in started or s.name not in ON_DEMAND]
    others = [s for name, s in started.items() if name not in {m.name for m in meant}]
    return standings([*meant, *others])


def told(cluster: ClusterState) -> list[str]:
    """For people (pure)."""
    lines = [f"serving cluster: {sum(r.up for r in cluster.replicas)} of {len(cluster.replicas)} replicas up"]
    for replica in cluster.replicas:
        held = f"{len(replica.adapters)} of {cluster.slots} adapters" if replica.up else f"down: {replica.why}"
        lines.append(f"  {replica.url}  {held}")
    for adapter in cluster.adapters:
        where = "on every replica" if not adapter.missing_on else f"MISSING on {', '.join(adapter.missing_on)}"
        if not adapter.on:
            where = "on no replica"
        warm = "" if adapter.firm else " (warmed)"
        lines.append(f"  {adapter.name}{warm}  {where}  {'; '.join(adapter.why)}")
    if cluster.unneeded:
        lines.append(f"  for nobody, goes when it is idle: {', '.join(cluster.unneeded)}")
    return lines


def _agent(fleet: FleetSpec, control: ControlStore, name: str) -> dict[str, Any]:
    from pawl.monitoring import drift_record
    from pawl.registry.approvals import unanswered

    route, rollout = bootstrap.current_route(fleet, control, fleet.agent(name)), control.open_rollout(name)
    waiting = [r for r in unanswered(control.requests(), control.rollouts(name)) if r.agent == name]
    return {
        "agent": name,
        "champion": route.champion.name,
        "challenger": route.challenger.name if route.challenger else None,
        "percent": route.percent,
        "shadows": [arm.name for arm in route.shadows],
        "drift": drift_record.of_champion(control, name, route.champion.name),
        "rollout": {"id": rollout.id, "stage": rollout.stage, "held": rollout.held} if rollout else None,
        "approvals": [
            {
                "version": r.version,
                "forced": r.override_by is not None,
                "expires_in_h": round((r.expires - time.time()) / 3600, 1),
                "evidence": r.evidence[:12],
            }
            for r in waiting
        ],
    }


def _tell(agent: dict[str, Any]) -> None:
    typer.echo(f"{agent['agent']}: champion {agent['champion']}")
    rollout = agent["rollout"]
    if agent["challenger"]:
        held = ", held" if rollout and rollout["held"] else ""
        stage = rollout["stage"] if rollout else "no rollout"
        typer.echo(f"  challenger {agent['challenger']} at {agent['percent']} % ({stage}{held})")
    for name in agent["shadows"]:
        typer.echo(f"  shadow {name}")
    if agent["drift"]:
        typer.echo(f"  DRIFT of {', '.join(agent['drift'])}: `pawl drift {agent['agent']}`")
    for one in agent["approvals"]:
        what = "forced" if one["forced"] else "waits for approval"
        typer.echo(
            f"  version {one['version']} {what}, expires in {one['expires_in_h']:.0f} h, evidence {one['evidence']}"
        )
