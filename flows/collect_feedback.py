"""Lake -> the window's interactions, joined by their feedback."""

from __future__ import annotations

from prefect import flow

from tasks.data import collect
from tasks.values import Collected


@flow
def collect_feedback(agent: str, since: float | None = None, until: float | None = None) -> Collected:
    """Bring what was recorded into the lake and say how much the window holds (epoch seconds; none: all)."""
    return collect(agent, since, until)
