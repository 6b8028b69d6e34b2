"""A dataset version -> better training settings, as a proposal."""

from __future__ import annotations

from typing import Annotated

from prefect import flow
from pydantic import Field

from tasks.searching import search
from tasks.values import Searched


@flow(flow_run_name="search {agent}")
def search_settings(
    agent: str = "functional-negative",
    dataset: str = "",
    minutes: Annotated[float | None, Field(gt=0)] = None,
    trials: Annotated[int | None, Field(ge=1)] = None,
) -> Searched:
    """Tries settings by their validation loss within the spec's budget, or the one given. Nothing is changed.

    Args:
        agent: its name in fleet.yaml
        dataset: name of a dataset version, or enough of it to tell it from the others; empty: the newest
        minutes: no trial begins after that; none: as fleet.yaml says
        trials: at most so many; none: as fleet.yaml says
    """
    return search(agent, dataset, minutes, trials)
