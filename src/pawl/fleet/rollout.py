"""How an agent's traffic shifts from champion to challenger."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from pawl.fleet.base import Spec

Stall = Literal["hold", "extend", "rollback"]


class BandsSpec(Spec):
    """What is done where the challenger's quality, as a share of the champion's, is shown to be lower than this.

    The milder the answer, the weaker the evidence that it needs: proof that the challenger is worse at all rolls back
    at the rollout's own alpha, whatever the band (docs/decisions/0017-bands-need-less-proof-than-rollback.md).
    """

    hold: float = Field(default=0.95, gt=0, le=1, description="below: no more traffic for now")
    halve: float = Field(default=0.90, gt=0, le=1, description="below: half of its share, and stricter breakers")
    rollback: float = Field(default=0.80, gt=0, le=1, description="below: a rollback names it an outage of quality")
    hold_alpha: float = Field(default=0.2, gt=0, lt=1, description="of holding one that is not below that band")
    halve_alpha: float = Field(default=0.1, gt=0, lt=1, description="of halving one that is not below that band")

    @model_validator(mode="after")
    def _bands_fall(self) -> BandsSpec:
        if not self.rollback <= self.halve <= self.hold:
            raise ValueError("bands must fall: rollback <= halve <= hold")
        return self


class RolloutSpec(Spec):
    """Stages, what each needs, and what stops them."""

    stages: tuple[int, ...] = (20, 50, 80, 100)
    min_shadow_pairs: int = Field(
        default=20,
        ge=0,
        description="graded pairs of answers to the same request; 0: no shadow, for tasks whose answers can be "
        "graded only by what clients say of them",
    )
    min_stage_sessions: int = Field(default=10, ge=1, description="scored challenger sessions a stage")
    min_watch_sessions: int = Field(default=20, ge=1)
    min_bake_s: float = Field(default=5.0, ge=0)
    alpha: float = Field(default=0.05, gt=0, lt=0.5, description="false rollback over the whole rollout")
    non_inferiority: float | None = Field(
        default=None, gt=0, lt=1, description="margin that must be ruled out before the champion gets no more traffic"
    )
    bands: BandsSpec = BandsSpec()
    max_error_rate: float = Field(default=0.10, gt=0, le=1)
    max_p95_latency_s: float = Field(default=30.0, gt=0)
    max_p95_first_token_s: float | None = Field(default=None, gt=0, description="of streamed answers; null: no limit")
    min_latency_samples: int = Field(default=20, ge=5)
    max_usd_per_request: float | None = Field(default=None, gt=0, description="mean cost; null: no limit")
    max_privacy_blocks: int = Field(default=0, ge=0, description="requests that privacy kept from the challenger")
    min_quality: float | None = Field(default=None, gt=0, lt=1, description="floor of the mean score; null: none")
    stall_hours: float = Field(default=168.0, gt=0, description="a stage that lasts longer has stalled")
    stall: Stall = Field(default="hold", description="what is done then; extend: it goes on waiting")

    @model_validator(mode="after")
    def _stages_rise(self) -> RolloutSpec:
        if not self.stages or list(self.stages) != sorted(set(self.stages)) or self.stages[-1] != 100:
            raise ValueError("stages must rise and end with 100, e.g. [20, 50, 80, 100]")
        if self.stages[0] < 1:
            raise ValueError("the first stage must send at least 1 %")
        return self
