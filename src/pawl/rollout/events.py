"""What happens around approvals and rollouts, told to who orchestrates: a port. What must last is in the database."""

from __future__ import annotations

import uuid
from typing import Any, Literal, Protocol

import msgspec

from pawl.rollout.control import Request

Name = Literal[
    "pawl.approval.asked",
    "pawl.approval.answered",  # a verdict that does not yet decide, or a no
    "pawl.approval.granted",
    "pawl.approval.rejected",  # closed for good
    "pawl.approval.refused",  # a code that answered nothing
    "pawl.approval.reminder",
    "pawl.approval.held",  # nobody answered in time
    "pawl.alias.strayed",  # moved by something else
    "pawl.alias.restored",
    "pawl.alias.moved",  # by promotion itself
    "pawl.feedback.enough",  # as much that can be learnt from as the agent's spec wants for a retrain
    "pawl.drift.found",
    "pawl.rollout.ready",  # its stage has all that the next one needs
    "pawl.rollout.stopped",  # held, halved or rolled back without anybody's word
    "pawl.champion.alarm",  # what serves an agent breaks a limit
    "pawl.champion.well",  # it keeps them again
]


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """One event about a version of an agent, or about the agent where `version` is empty."""

    name: Name
    agent: str
    version: str
    at: float  # epoch seconds
    detail: dict[str, Any] = {}
    id: str = msgspec.field(default_factory=lambda: str(uuid.uuid4()))

    @property
    def resource(self) -> str:
        """What it is about, as triggers match it."""
        return f"pawl.version.{self.agent}.{self.version}" if self.version else f"pawl.agent.{self.agent}"


def about(request: Request, name: Name, at: float, **detail: Any) -> Event:
    """An event about a request; its evidence, adapter and link are in every one."""
    known = {"evidence": request.evidence, "adapter": request.adapter, "link": request.link}
    return Event(name=name, agent=request.agent, version=request.version, at=at, detail=known | detail)


class Events(Protocol):
    """Where events go. An event hastens what a look each minute would find too, and is where notifications hang."""

    def emit(self, event: Event) -> bool:
        """Whether it was taken; never raises, and gives up after seconds."""
        ...
