"""Every agent's journal into the lake, and who has learnt enough for a retrain."""

from __future__ import annotations

from prefect import flow

from tasks.data import take_in
from tasks.promotion import agents_of_fleet
from tasks.values import Fresh


@flow(flow_run_name="collect all agents", timeout_seconds=3000)
def collect_fleet(agents: list[str] | None = None) -> tuple[Fresh, ...]:
    """Brings what was recorded into the lake and counts what is new and can teach.

    Where that is as much as the agent's `data.requirements.retrain_examples`, the event `pawl.feedback.enough` starts
    its retrain.

    Args:
        agents: names of fleet.yaml; none: all of them
    """
    return take_in(tuple(agents or agents_of_fleet()))
