"""The serving cluster as it must be beside the cluster as it is: looked at, never changed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import msgspec

from pawl.errors import PawlError
from pawl.serving.desired import Need
from pawl.serving.replicas import Replica


class AdapterState(msgspec.Struct, frozen=True):
    """One adapter: who names it, and the replicas that do not list it."""

    name: str
    why: tuple[str, ...]
    firm: bool
    on: int  # replicas that list it
    missing_on: tuple[str, ...]


class ReplicaState(msgspec.Struct, frozen=True):
    """One replica as it answers now."""

    url: str
    up: bool
    why: str
    adapters: tuple[str, ...]


class ClusterState(msgspec.Struct, frozen=True):
    """The serving cluster: what must be there, what is there, and what is there for nobody."""

    replicas: tuple[ReplicaState, ...]
    adapters: tuple[AdapterState, ...]
    unneeded: tuple[str, ...]
    slots: int


def looked_at(replicas: Sequence[Replica]) -> list[ReplicaState]:
    """Every replica as it answers now; changes nothing."""

    def look(replica: Replica) -> ReplicaState:
        try:
            listed = replica.look().listed
        except PawlError as e:
            return ReplicaState(replica.url, False, str(e), ())
        return ReplicaState(replica.url, True, "", tuple(sorted(n for n, m in listed.items() if m.adapter)))

    with ThreadPoolExecutor(max(1, len(replicas))) as pool:
        return list(pool.map(look, replicas))


def compared(wanted: Mapping[str, Need], replicas: Sequence[ReplicaState], slots: int) -> ClusterState:
    """What must be beside what is (pure)."""
    up = [r for r in replicas if r.up]
    there = {name for r in up for name in r.adapters}
    adapters = tuple(
        AdapterState(
            n, need.why, need.firm, sum(n in r.adapters for r in up), tuple(r.url for r in up if n not in r.adapters)
        )
        for n, need in wanted.items()
    )
    return ClusterState(tuple(replicas), adapters, tuple(sorted(there - wanted.keys())), slots)
