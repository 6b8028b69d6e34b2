"""What a fleet says of its costs, and whether anything can be called saved by that (pure)."""

from __future__ import annotations

from typing import NamedTuple

from pawl.fleet.clouds import cloud_of
from pawl.fleet.spec import FleetSpec
from pawl.monitoring.break_even import Outlay

NO_PRICE = (
    "nobody said what the local machine costs: set costs.machines, or `machine` of the local upstream, in fleet.yaml"
)


class Paid(NamedTuple):
    """How serving locally is paid for."""

    outlay: Outlay | None  # whether anybody asks or not; None: nobody said any
    by_token: bool  # local answers cost their tokens beside it; otherwise machines by the hour take their place


def paid(fleet: FleetSpec) -> Paid:
    """As fleet.yaml has it."""
    machines = fleet.costs.paid_by_hour(fleet.upstreams)
    return Paid(Outlay.of(fleet.costs, machines), not machines)


def unpriced(fleet: FleetSpec) -> str:
    """Why no share of the costs can be called saved, "" where one can: a machine that costs nothing would always win.

    What is paid once or monthly beside the machines says nothing of what they cost.
    """
    clouds = [fleet.upstreams[c] for a in fleet.agents if (c := cloud_of(fleet, a.name)) is not None]
    if not clouds:
        return "the fleet has no cloud to compare with"
    if not any(c.usd_per_million_prompt or c.usd_per_million_completion for c in clouds):
        return "the cloud's tokens have no price in fleet.yaml"
    local = [u for u in fleet.upstreams.values() if u.kind == "local"]
    free = any(u.machine is None and not (u.usd_per_million_prompt or u.usd_per_million_completion) for u in local)
    return NO_PRICE if free and not fleet.costs.machines else ""
