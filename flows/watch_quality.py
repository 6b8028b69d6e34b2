"""What serves, looked at every quarter of an hour: has the traffic drifted from what it was?"""

from __future__ import annotations

from prefect import flow, runtime

from tasks.promotion import agents_of_fleet
from tasks.values import Watched
from tasks.watching import watch


def _name() -> str:
    return f"watch {runtime.flow_run.parameters.get('agent') or 'all agents'}"


@flow(flow_run_name=_name, timeout_seconds=840)
def watch_quality(agent: str | None = None) -> tuple[Watched, ...]:
    """One agent, or all. A new drift is an event, `pawl.drift.found`; an agent whose look fails keeps no other from
    its own, and fails the run at the end.

    Args:
        agent: its name in fleet.yaml; none: all of them
    """
    agents = (agent,) if agent else tuple(agents_of_fleet())
    looks = [watch(name, return_state=True) for name in agents]
    return tuple(look.result() for look in looks)
