"""Lake -> the window's interactions, joined by their feedback."""

from __future__ import annotations

from prefect import flow

from tasks.data import collect
from tasks.values import Collected


@flow(flow_run_name="collect {agent}")
def collect_feedback(agent: str, since: float | None = None, until: float | None = None) -> Collected:
    """Bring what was recorded into the lake and say how much the window holds.

    Args:
        agent: its name in fleet.yaml
        since: start of the window, in seconds since 1970; none: from the beginning
        until: its end, in seconds since 1970; none: now
    """
    return collect(agent, since, until)
