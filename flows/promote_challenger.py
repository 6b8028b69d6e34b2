"""A gate's decision -> a registry version, and the request for a person's approval."""

from __future__ import annotations

from prefect import flow

from tasks.learning import link_report
from tasks.promotion import register
from tasks.values import Judged, Promoted


@flow
def promote_challenger(judged: Judged) -> Promoted:
    """Registers in every case; asks for approval where the gate says promote. Nothing waits here for a person."""
    promoted = register(judged)
    link_report(promoted.agent, promoted.url, f"{promoted.adapter}: {promoted.unasked or promoted.decision}")
    return promoted
