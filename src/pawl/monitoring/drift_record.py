"""What the latest look found, in the control database: gateways, `pawl status` and the summary tell it from there."""

from __future__ import annotations

from collections.abc import Callable
from math import log

import msgspec

from pawl.errors import StaleWrite
from pawl.rollout.control import ControlStore


class KindNow(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One kind of drift as it stands. Means are in the kind's own unit; None before there were sessions."""

    evidence: float  # the e-value now
    peak: float  # the most it was; at the record's threshold the kind has drifted
    sessions: int  # that are compared with
    bets: int = 0  # sessions that were tested since the watch began, or the kind's last drift ended
    before: float | None = None
    now: float | None = None
    since: float | None = None  # epoch seconds; None: no drift is on


class DriftRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One agent's. Times are epoch seconds."""

    agent: str
    champion: str
    anchor: float  # since when this champion is watched
    looked_at: float
    through: float  # sessions that began before were seen
    threshold: float
    kinds: dict[str, KindNow]
    compared_since: float | None = None  # sessions before are not compared with
    told: tuple[str, ...] = ()  # kinds whose drift was told by an event and has not ended

    @property
    def drifting(self) -> tuple[str, ...]:
        """The kinds that have drifted and not come back."""
        return tuple(sorted(k for k, now in self.kinds.items() if now.since is not None))

    @property
    def known(self) -> bool:
        """Whether any kind was tested at all: without that there is no saying that nothing has drifted."""
        return any(now.bets > 0 or now.since is not None for now in self.kinds.values())


def of_champion(control: ControlStore, agent: str, champion: str) -> tuple[str, ...]:
    """The kinds that have drifted while this champion serves."""
    record = read(control, agent)
    return record.drifting if record is not None and record.champion == champion else ()


def share(record: DriftRecord, now: KindNow) -> float:
    """How much of the evidence that a drift needs there is: logarithms, cut to 0..1; 1 while a drift is on."""
    if now.since is not None:
        return 1.0
    return min(1.0, max(0.0, log(max(1.0, now.evidence)) / log(record.threshold)))


def read(control: ControlStore, agent: str) -> DriftRecord | None:
    """The latest look's; None before the first."""
    return _decoded(control.pointer(_name(agent))[1])


def write(control: ControlStore, agent: str, make: Callable[[DriftRecord | None], DriftRecord]) -> DriftRecord:
    """Replace it by what `make` makes of the one before; made again where somebody else wrote meanwhile."""
    while True:
        revision, value = control.pointer(_name(agent))
        made = make(_decoded(value))
        try:
            control.move_pointer(_name(agent), revision, msgspec.json.encode(made).decode())
        except StaleWrite:
            continue
        return made


def _name(agent: str) -> str:
    return f"drift:{agent}"


def _decoded(value: str) -> DriftRecord | None:
    try:
        return msgspec.json.decode(value, type=DriftRecord) if value else None
    except msgspec.DecodeError:  # an earlier version's: the next look writes it anew
        return None
