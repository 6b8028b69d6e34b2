"""What serving locally costs besides tokens: machines by the hour, and what was paid once or is paid monthly."""

from __future__ import annotations

from pydantic import Field

from pawl.fleet.base import Spec
from pawl.fleet.upstream import UpstreamSpec

HOURS_A_MONTH = 365.25 * 24 / 12


class MachineCost(Spec):
    """Machines of one kind. US dollars."""

    usd_per_hour: float = Field(ge=0, description="of one; for your own hardware its power, space and wear")
    count: int = Field(default=1, ge=1)
    hours_per_month: float = Field(
        default=HOURS_A_MONTH, gt=0, le=744, description="that it is paid for; not given: it is never switched off"
    )


class CostsSpec(Spec):
    """What `pawl report` sets against the savings."""

    machines: dict[str, MachineCost] = Field(
        default={}, description="not given: the `machine` of each local upstream that has one, running all month"
    )
    fixed_usd: float = Field(default=0.0, ge=0, description="paid once: hardware, setting up")
    usd_per_month: float = Field(default=0.0, ge=0, description="paid every month: storage, somebody's hours")

    def paid_by_hour(self, upstreams: dict[str, UpstreamSpec]) -> dict[str, MachineCost]:
        """The machines by name; empty where nobody said what they cost."""
        if self.machines:
            return self.machines
        return {
            name: MachineCost(usd_per_hour=u.machine.usd_per_hour, count=max(1, len(u.base_urls)))
            for name, u in upstreams.items()
            if u.kind == "local" and u.machine is not None
        }
