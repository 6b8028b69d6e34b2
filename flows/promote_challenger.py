"""A gate's decision -> a registry version, and the request for a person's approval."""

from __future__ import annotations

from prefect import flow

from tasks.promotion import register
from tasks.values import Judged, Promoted


@flow(flow_run_name="promote {judged.candidate}: {judged.decision}")
def promote_challenger(judged: Judged) -> Promoted:
    """Registers in every case; asks for approval where the gate says promote. Nothing waits here for a person."""
    return register(judged)
