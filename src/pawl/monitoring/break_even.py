"""When serving locally has paid for itself (pure). US dollars; months of 730.5 hours."""

from __future__ import annotations

import math

import msgspec

from pawl.fleet.costs import HOURS_A_MONTH, CostsSpec, MachineCost


class Outlay(msgspec.Struct, frozen=True, kw_only=True):
    """What serving locally costs, whether anybody asks or not."""

    machines: dict[str, MachineCost]  # none: what local models answer is paid by the token, beside the rest
    fixed_usd: float = 0.0  # once
    other_usd_per_month: float = 0.0

    @classmethod
    def of(cls, costs: CostsSpec, machines: dict[str, MachineCost]) -> Outlay | None:
        """As fleet.yaml says it; None where it says of no such cost."""
        if not (machines or costs.fixed_usd or costs.usd_per_month):
            return None
        return cls(machines=machines, fixed_usd=costs.fixed_usd, other_usd_per_month=costs.usd_per_month)

    @property
    def usd_per_month(self) -> float:
        """Machines and all else."""
        hourly = math.fsum(m.usd_per_hour * m.count * m.hours_per_month for m in self.machines.values())
        return hourly + self.other_usd_per_month

    def usd_in(self, hours: float) -> float:
        """Of so many hours of a month."""
        return self.usd_per_month * hours / HOURS_A_MONTH


class BreakEven(msgspec.Struct, frozen=True, kw_only=True):
    """A month like this one, from now on. Bounds are two-sided, 95 %."""

    avoided: float  # what clouds did not get in a month: all-cloud less what they took (and less tokens, Outlay's)
    machines: float  # what serving locally costs in a month, whoever asks
    net: float
    net_lower: float
    net_upper: float
    fixed: float
    months: float | None  # until the fixed costs have come back; None: never
    months_soonest: float | None
    months_latest: float | None  # None: perhaps never
    calls: float  # answers a month, at this traffic
    calls_to_cover: float | None  # answers a month that pay for `machines`; None: no number does


def break_even(avoided: tuple[float, float, float], answered: int, hours: float, outlay: Outlay) -> BreakEven:
    """From what clouds did not get (value, lower, upper) in `hours`, and the answers of that time."""
    months = hours / HOURS_A_MONTH
    monthly = outlay.usd_per_month
    value, low, high = (a / months for a in avoided)
    calls = answered / months
    return BreakEven(
        avoided=value,
        machines=monthly,
        net=value - monthly,
        net_lower=low - monthly,
        net_upper=high - monthly,
        fixed=outlay.fixed_usd,
        months=_months(outlay.fixed_usd, value - monthly),
        months_soonest=_months(outlay.fixed_usd, high - monthly),
        months_latest=_months(outlay.fixed_usd, low - monthly),
        calls=calls,
        calls_to_cover=calls * monthly / value if value > 0 else None,
    )


def _months(fixed: float, net: float) -> float | None:
    return fixed / net if net > 0 else None
