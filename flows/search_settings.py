"""A dataset version -> better training settings, as a proposal."""

from __future__ import annotations

from prefect import flow

from tasks.searching import search
from tasks.values import Searched


@flow(flow_run_name="search {agent}")
def search_settings(
    agent: str = "functional-negative", dataset: str = "", minutes: float | None = None, trials: int | None = None
) -> Searched:
    """Tries settings by their validation loss within the spec's budget, or the one given. Nothing is changed."""
    return search(agent, dataset, minutes, trials)
