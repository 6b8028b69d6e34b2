"""The route table's rows and the sticky, monotone split (pure)."""

from __future__ import annotations

import hashlib
from typing import Literal

import msgspec

BUCKETS = 10_000


class Arm(msgspec.Struct, frozen=True):
    """Where an interaction can be sent."""

    name: str  # adapter version, base model's served name, or upstream name
    upstream: str  # key of fleet.upstreams
    model: str  # model name to send there
    kind: Literal["local", "cloud"]


class Route(msgspec.Struct, frozen=True, kw_only=True):
    """How one agent's traffic is split now. `revision` rises with every write."""

    agent: str
    revision: int = 0
    champion: Arm
    challenger: Arm | None = None
    percent: int = 0  # share of sessions that the challenger answers
    cautious: bool = False  # the challenger's breaker opens at half of its limits
    shadows: tuple[Arm, ...] = ()  # arms that answer too, without a client seeing it
    rollout: str | None = None
    stage: str | None = None


def bucket(agent: str, rollout: str | None, session: str) -> int:
    """Stable bucket 0..9999 of a session.

    Salted with the rollout, so that no session is always the first to be tried on.
    """
    digest = hashlib.blake2b(f"{agent}\0{rollout or ''}\0{session}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") % BUCKETS


def choose(route: Route, session: str) -> Arm:
    """The arm that answers this session.

    Raising `percent` only moves sessions to the challenger, lowering it only back.
    """
    if route.challenger is None or route.percent <= 0:
        return route.champion
    mine = bucket(route.agent, route.rollout, session)
    return route.challenger if mine < route.percent * BUCKETS // 100 else route.champion
