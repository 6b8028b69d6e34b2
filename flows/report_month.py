"""A month of the lake -> what it saved, how independent the fleet is, and what may be decided by that."""

from __future__ import annotations

from prefect import flow

from tasks.reporting import called, report
from tasks.values import Reported


@flow(flow_run_name=called)
def report_month(month: str | None = None) -> Reported:
    """Report on a month, on MLflow and as a page.

    Args:
        month: such as 2026-11; none: the last whole one
    """
    return report(month)
