"""Champion and challenger on the same unseen items -> report -> gate."""

from __future__ import annotations

from prefect import flow

from tasks.learning import judge
from tasks.values import Adapter, Judged


@flow(flow_run_name="evaluate {adapter.candidate}")
def evaluate_challenger(adapter: Adapter) -> Judged:
    """A rejected challenger is an outcome, not an error."""
    return judge(adapter)
