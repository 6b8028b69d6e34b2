"""A model that judges where no oracle can."""

from __future__ import annotations

from pydantic import Field

from pawl.fleet.base import Spec


class JudgeSpec(Spec):
    """Who judges the answers of an agent without an oracle, by what, and how well people must agree with it."""

    upstream: str = Field(description="the upstream that is asked; its model must be another than the judged ones")
    instructions: str = Field(
        default="The better answer does what was asked, completely and correctly, and nothing else.",
        description="what makes an answer better, in words",
    )
    min_agreement: float = Field(
        default=0.7, ge=0.5, lt=1, description="share of people's preferences that it must share, at the lower bound"
    )
    pairs: int = Field(default=100, ge=20, description="preferences of people that it is held against, 20 at least")
    most_usd: float = Field(default=5.0, gt=0, description="what one evaluation may cost; more is refused")
