"""A day on one page, problems first."""

from __future__ import annotations

from prefect import flow, runtime

from tasks.values import Summarised
from tasks.watching import summarise


def _name() -> str:
    return f"summary of {runtime.flow_run.parameters.get('day') or 'yesterday'}"


@flow(flow_run_name=_name)
def summarise_day(day: str | None = None) -> Summarised:
    """Sums a day (in PAWL_TIMEZONE) up for every agent of the fleet.

    Args:
        day: such as 2026-11-21; none: yesterday
    """
    return summarise(day)
