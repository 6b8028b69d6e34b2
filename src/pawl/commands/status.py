"""`pawl status`: who serves each agent, rollouts, approvals that wait, and the cluster as it must be and as it is."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Annotated, Any

import msgspec
import typer

from pawl import bootstrap
from pawl.errors import PawlError
from pawl.fleet.spec import FleetSpec
from pawl.rollout.control import ControlStore
from pawl.serving.desired import Need
from pawl.serving.replicas import Replica
from pawl.settings import Settings


class AdapterState(msgspec.Struct, frozen=True):
    """One adapter: who names it, and the replicas that do not list it."""

    name: str
    why: tuple[str, ...]
    firm: bool
    on: int  # replicas that list it
    missing_on: tuple[str, ...]


class ReplicaState(msgspec.Struct, frozen=True):
    """One replica as it answers now."""

    url: str
    up: bool
    why: str
    adapters: tuple[str, ...]


class ClusterState(msgspec.Struct, frozen=True):
    """The serving cluster: what must be there, what is there, and what is there for nobody."""

    replicas: tuple[ReplicaState, ...]
    adapters: tuple[AdapterState, ...]
    unneeded: tuple[str, ...]
    slots: int


def status(
    as_json: Annotated[bool, typer.Option("--json", help="one JSON object on stdout")] = False,
) -> None:
    """What serves each agent, open rollouts, what waits for approval, and where every adapter is."""
    settings = Settings()
    fleet, control = bootstrap.fleet(settings), bootstrap.control(settings)
    wanted = bootstrap.needs(settings, fleet, control)
    cluster = compared(wanted, looked_at(bootstrap.replicas(settings, fleet)()), settings.vllm_cpu_loras)
    agents = [_agent(fleet, control, name) for name in (a.name for a in fleet.agents)]
    if as_json:
        typer.echo(msgspec.json.encode({"agents": agents, "cluster": cluster}))
        return
    for agent in agents:
        _tell(agent)
    for line in told(cluster):
        typer.echo(line)


def looked_at(replicas: Sequence[Replica]) -> list[ReplicaState]:
    """Every replica as it answers now; changes nothing."""

    def look(replica: Replica) -> ReplicaState:
        try:
            listed = replica.look().listed
        except PawlError as e:
            return ReplicaState(replica.url, False, str(e), ())
        return ReplicaState(replica.url, True, "", tuple(sorted(n for n, m in listed.items() if m.adapter)))

    with ThreadPoolExecutor(max(1, len(replicas))) as pool:
        return list(pool.map(look, replicas))


def compared(wanted: Mapping[str, Need], replicas: Sequence[ReplicaState], slots: int) -> ClusterState:
    """What must be beside what is (pure)."""
    up = [r for r in replicas if r.up]
    there = {name for r in up for name in r.adapters}
    adapters = tuple(
        AdapterState(
            n, need.why, need.firm, sum(n in r.adapters for r in up), tuple(r.url for r in up if n not in r.adapters)
        )
        for n, need in wanted.items()
    )
    return ClusterState(tuple(replicas), adapters, tuple(sorted(there - wanted.keys())), slots)


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
    from pawl.registry.approvals import unanswered

    route, rollout = bootstrap.current_route(fleet, control, fleet.agent(name)), control.open_rollout(name)
    waiting = [r for r in unanswered(control.requests(), control.rollouts(name)) if r.agent == name]
    return {
        "agent": name,
        "champion": route.champion.name,
        "challenger": route.challenger.name if route.challenger else None,
        "percent": route.percent,
        "shadows": [arm.name for arm in route.shadows],
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
    for one in agent["approvals"]:
        what = "forced" if one["forced"] else "waits for approval"
        typer.echo(
            f"  version {one['version']} {what}, expires in {one['expires_in_h']:.0f} h, evidence {one['evidence']}"
        )
