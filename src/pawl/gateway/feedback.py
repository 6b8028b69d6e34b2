"""What `POST /v1/feedback` takes: one object or a list, about interactions that exist."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from typing import Any, Literal

import msgspec

from pawl.gateway.wire import Refused
from pawl.lake.records import Feedback

MOST = 1000


class Body(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One feedback as a client sends it."""

    interaction: str
    kind: Literal["outcome", "rating", "accepted", "correction"]
    score: float | None = None
    detail: dict[str, Any] = {}


def read_feedback(body: Any, key_id: str, find_agent: Callable[[str], str | None]) -> list[Feedback]:
    """The records of a request's body. Refused(400, 404) names the first row that is wrong; then none is taken."""
    rows = body if isinstance(body, list) else [body]
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
        agent = find_agent(read.interaction)
        if agent is None:
            raise Refused(404, f"feedback {n}: no interaction has the id {read.interaction!r}", code="not_found")
        made.append(
            Feedback(
                id=uuid.uuid4().hex,
                at=time.time(),
                interaction=read.interaction,
                agent=agent,
                kind=read.kind,
                score=read.score,
                detail=read.detail,
                key_id=key_id,
            )
        )
    return made
