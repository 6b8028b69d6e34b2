"""What `POST /v1/feedback` takes: one object or a list, about interactions that exist."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections import OrderedDict
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Literal

import msgspec

from pawl.gateway.wire import Refused
from pawl.lake.parquet_lake import ParquetLake
from pawl.lake.records import Feedback, Interaction
from pawl.rollout.control import Key

MOST = 1000
_REMEMBER = 200_000  # interactions that feedback may be about without a look into the lake


class Body(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One feedback as a client sends it."""

    interaction: str
    kind: Literal["outcome", "rating", "accepted", "correction"]
    score: float | None = None
    detail: dict[str, Any] = {}


class Seen(msgspec.Struct, frozen=True, gc=False):
    """What is remembered of an interaction that feedback may be about."""

    agent: str
    key_id: str
    arm: str


class FeedbackDesk:
    """Takes feedback about interactions that exist and that the key may see.

    The latest interactions are remembered; older ones, and those of other gateways, are looked up in the lake.
    """

    def __init__(
        self, lake: ParquetLake, agents: Sequence[str], chains: Mapping[str, Collection[str]] | None = None
    ) -> None:
        """`chains`: the agents of each, by name."""
        self._chains = chains or {}
        self._lake, self._agents = lake, (*agents, *self._chains)
        self._seen: OrderedDict[str, Seen] = OrderedDict()
        self._looking = asyncio.Lock()

    def remember(self, made: Interaction) -> None:
        """This interaction may get feedback."""
        self._seen[made.id] = Seen(made.agent, made.key_id, made.arm)
        while len(self._seen) > _REMEMBER:
            self._seen.popitem(last=False)

    def arm_of(self, interaction: str) -> str | None:
        """The arm that answered it, None where that is not remembered."""
        seen = self._seen.get(interaction)
        return seen.arm if seen else None

    async def read(self, body: Any, key: Key) -> list[Feedback]:
        """The records of a request's body. Refused(400, 404) names the first row that is wrong; then none is taken."""
        rows = body if isinstance(body, list) else [body]
        ids = {r["interaction"] for r in rows if isinstance(r, dict) and isinstance(r.get("interaction"), str)}
        if not ids <= self._seen.keys():
            # In a thread, and one at a time: the lake is large, and ids from nowhere must not stop the traffic.
            async with self._looking:
                self._seen.update(await asyncio.to_thread(self._search, ids - self._seen.keys()))
        return read_feedback(rows, key, self._seen.get, self._chains)

    def _search(self, ids: set[str]) -> dict[str, Seen]:
        return {i: Seen(*owner) for i, owner in self._lake.owners(ids).items() if owner[0] in self._agents}


def read_feedback(
    rows: list[Any],
    key: Key,
    find: Callable[[str], Seen | None],
    chains: Mapping[str, Collection[str]] | None = None,
) -> list[Feedback]:
    """Feedback records of the rows (pure but for ids and the time). Refused(400, 404) names the first wrong row."""
    if not 1 <= len(rows) <= MOST:
        raise Refused(400, f"send 1 to {MOST} feedbacks at a time, not {len(rows)}")
    made = []
    for n, row in enumerate(rows):
        try:
            read = msgspec.convert(row, Body)
        except msgspec.ValidationError as e:
            raise Refused(400, f"feedback {n}: {e}") from e
        if read.score is not None and not 0 <= read.score <= 1:
            raise Refused(400, f"feedback {n}: score must be between 0 and 1, not {read.score}")
        if read.kind in ("outcome", "rating") and read.score is None:
            raise Refused(400, f"feedback {n}: kind {read.kind} needs a score between 0 and 1")
        seen = find(read.interaction)
        # One answer for both: ids of others are not confirmed.
        if seen is None or not _may_see(key, seen, chains or {}):
            raise Refused(404, f"feedback {n}: no interaction has the id {read.interaction!r}", code="not_found")
        made.append(
            Feedback(
                id=uuid.uuid4().hex,
                at=time.time(),
                interaction=read.interaction,
                agent=seen.agent,
                kind=read.kind,
                score=read.score,
                detail=read.detail,
                key_id=key.id,
            )
        )
    return made


def _may_see(key: Key, seen: Seen, chains: Mapping[str, Collection[str]]) -> bool:
    """A client sees its own interactions; other roles those of the agents they may use, and of chains of these."""
    if key.terms.agents and not set(chains.get(seen.agent, (seen.agent,))) <= set(key.terms.agents):
        return False
    return key.role != "client" or seen.key_id == key.id
