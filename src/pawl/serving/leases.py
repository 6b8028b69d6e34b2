"""Adapters wanted for a while by a process that no route speaks for yet: kept in the control database.

Without a lease the gateway's reconciler would take an evaluation's adapter off the cluster under its hands.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from pawl.errors import StaleWrite
from pawl.rollout.control import ControlStore
from pawl.serving.desired import Lease

_POINTER = "serving/leases"
_TRIES = 20


def held(control: ControlStore) -> list[Lease]:
    """All leases, ended ones too."""
    return _decoded(control.pointer(_POINTER)[1])


def take(control: ControlStore, lease: Lease, now: float, allow: Callable[[list[Lease]], None]) -> None:
    """Write a lease; one of the same name is replaced. `allow` gets those that stand and may raise: between its look
    and the write nobody else's lease comes."""

    def change(standing: list[Lease]) -> list[Lease]:
        allow(standing)
        return [one for one in standing if one.name != lease.name] + [lease]

    _change(control, now, change)


def give_back(control: ControlStore, name: str, now: float) -> None:
    """End a lease before its time."""
    _change(control, now, lambda standing: [one for one in standing if one.name != name])


def _change(control: ControlStore, now: float, change: Callable[[list[Lease]], list[Lease]]) -> None:
    for attempt in range(_TRIES):
        revision, text = control.pointer(_POINTER)
        rows = change([one for one in _decoded(text) if one.until > now])
        try:
            control.move_pointer(_POINTER, revision, msgspec.json.encode(rows).decode())
            return
        except StaleWrite:
            if attempt == _TRIES - 1:
                raise


def _decoded(text: str) -> list[Lease]:
    return msgspec.json.decode(text, type=list[Lease]) if text else []
