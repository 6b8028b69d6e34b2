"""Which cloud an agent is measured against."""

from __future__ import annotations

from pawl.fleet.spec import FleetSpec


def cloud_of(fleet: FleetSpec, agent: str) -> str | None:
    """The upstream that prices "all in the cloud": the cloud that the agent names first, else the fleet's first.

    None in a fleet without a cloud. An agent that fleet.yaml names no longer gets the fleet's first.
    """
    names = [n for n, u in fleet.upstreams.items() if u.kind == "cloud"]
    own = [u for a in fleet.agents if a.name == agent for _, u in a.upstreams() if u in names]
    return next(iter(own or names), None)
