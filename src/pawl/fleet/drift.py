"""How an agent's traffic is watched for drift."""

from __future__ import annotations

from pydantic import Field

from pawl.fleet.base import Spec


class DriftSpec(Spec):
    """`alpha` is what the whole watch over one champion may err, however often and however long it looks."""

    alpha: float = Field(
        default=0.05, gt=0, le=0.5, description="chance of any false drift while one champion serves, over all kinds"
    )
    reference_days: float = Field(
        default=7.0, gt=0, le=60, description="traffic before a champion took over that inputs are compared with"
    )
    feedback_hours: float = Field(
        default=6.0, gt=0, le=168, description="how long feedback is waited for before its lack counts"
    )
    sessions_per_client: int = Field(
        default=1,
        ge=1,
        le=200,
        description="of them, so many of one API key at most: sessions of one job resemble each other, and would look "
        "like a drift; more find a drift sooner where each session is a case of its own",
    )
    sessions_per_quarter: int = Field(
        default=15, ge=1, le=200, description="sessions looked at of each quarter of an hour, drawn by hash"
    )
