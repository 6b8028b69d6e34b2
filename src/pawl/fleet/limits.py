"""What a key or an agent may use, and where its requests may go."""

from __future__ import annotations

from functools import cached_property
from typing import Literal

from pydantic import Field

from pawl.fleet.base import Spec

Privacy = Literal["open", "local_only", "strict"]  # from wide to narrow


class LimitsSpec(Spec):
    """Rates are smoothed over a minute; budgets are by UTC day and month. None: no limit."""

    requests_per_minute: float | None = Field(default=None, gt=0)
    tokens_per_minute: float | None = Field(default=None, gt=0)
    usd_per_day: float | None = Field(default=None, ge=0)
    usd_per_month: float | None = Field(default=None, ge=0)

    @cached_property
    def any(self) -> bool:
        """Whether there is any limit at all."""
        return self != LimitsSpec()


class KeyTerms(Spec):
    """What one API key may do beyond its role."""

    agents: tuple[str, ...] = Field(default=(), description="agents it may call; empty: all")
    privacy: Privacy = "open"
    limits: LimitsSpec = LimitsSpec()
    learn: bool = Field(default=True, description="agents may learn from its requests")
