"""Runs whose process is gone: marked, and started again where nothing else would."""

from __future__ import annotations

from typing import Annotated

from prefect import flow
from pydantic import Field

from tasks.crashed import Found, crashed_runs, settle_crashed, show_crashed, silent_runs, still_silent


@flow(flow_run_name="look for crashed runs", timeout_seconds=600)
def resume_crashed(
    older_than_s: Annotated[float, Field(ge=0)] = 120, most: Annotated[int, Field(ge=0, le=10)] = 3
) -> tuple[Found, ...]:
    """Idempotent: two at once start nothing twice. Short, but where runs are silent it listens for them a while.

    Args:
        older_than_s: seconds without a heartbeat after which a run counts as dead, at least two heartbeats
        most: how often one run is started again; then event `pawl.run.abandoned` says that it is given up
    """
    crashed = tuple(settle_crashed(one) for one in crashed_runs(most))
    silent = tuple(settle_crashed(one) for one in still_silent(silent_runs(older_than_s, most)))
    return show_crashed(crashed + silent)
