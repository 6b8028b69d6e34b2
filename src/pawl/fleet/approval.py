"""What a person's approval of a challenger takes."""

from __future__ import annotations

from pydantic import Field

from pawl.fleet.base import Spec


class ApprovalSpec(Spec):
    """Who must say yes, and how long it may take. A request keeps the terms it was asked under."""

    quorum: int = Field(default=1, ge=1, le=9, description="different people who must say yes")
    starter_alone: bool = Field(
        default=True, description="false: whoever started the training does not approve it without somebody else"
    )
    hours: float = Field(default=72.0, gt=0, description="until a request that nobody answered is held")
    remind_hours: float = Field(default=24.0, gt=0, description="between two reminders while it waits")
