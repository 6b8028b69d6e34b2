"""While a request waits for people: reminders, and what becomes of one that nobody answered."""

from __future__ import annotations

import logging
from typing import Literal

import msgspec

from pawl.errors import PawlError, StaleWrite
from pawl.improvement.alias_watch import drop as drop_alias
from pawl.improvement.alias_watch import named
from pawl.improvement.workplace import Workplace
from pawl.registry.approvals import Tally, tally, unanswered
from pawl.rollout.control import Request
from pawl.rollout.events import Name, about

Due = Literal["nothing", "remind", "hold", "reject"]
_TOLD: dict[Due, tuple[str, Name]] = {
    "remind": ("approval reminder", "pawl.approval.reminder"),
    "hold": ("approval expired: held", "pawl.approval.held"),
    "reject": ("approval closed: rejected", "pawl.approval.rejected"),
}
log = logging.getLogger("pawl.approvals")


def due(request: Request, counted: Tally, now: float, remind_s: float) -> Due:
    """What a waiting request calls for at `now` (pure)."""
    if request.closed_at is not None:
        return "nothing"
    if request.override_by is not None:
        return "hold" if now >= request.expires else "nothing"
    if counted.standing == "rejected":
        return "reject"
    if counted.standing == "expired":
        return "hold"
    asked = request.reminded_at if request.reminded_at is not None else request.asked_at
    return "remind" if counted.standing == "waiting" and now - asked >= remind_s else "nothing"


def attend(place: Workplace, now: float) -> list[tuple[Request, Due]]:
    """Remind of what waits, hold what nobody answered, close what was rejected; each once. Returns what was done.

    The champion goes on serving, and its guardrails go on, whatever happens here.
    """
    done: list[tuple[Request, Due]] = []
    for request in unanswered(place.control.requests(), place.control.rollouts(place.agent_name)):
        if request.agent != place.agent_name:
            continue
        counted = tally(request, place.control.approvals(request.agent, request.version), now)
        what = due(request, counted, now, place.agent.approval.remind_hours * 3600)
        if what != "nothing" and _mark(place, request, what, now):
            _tell(place, request, counted, what, now)
            done.append((request, what))
    return done


def _mark(place: Workplace, request: Request, what: Due, now: float) -> bool:
    """Whether this writer was the one that marked it: the others keep silent."""
    if what == "remind":
        marked = msgspec.structs.replace(request, reminded_at=now)
    else:
        marked = msgspec.structs.replace(request, closed_at=now, closed_as="held" if what == "hold" else "rejected")
    try:
        place.control.amend_request(request, marked)
    except StaleWrite:
        return False
    return True


def _tell(place: Workplace, request: Request, counted: Tally, what: Due, now: float) -> None:
    audited, name = _TOLD[what]
    detail = {
        "approved_by": list(counted.yes),
        "rejected_by": list(counted.no),
        "lacks": counted.lacks,
        "expires": request.expires,
    }
    told = {"agent": request.agent, "version": request.version, "evidence": request.evidence}
    place.control.audit(audited, "roll_out", told | detail, now)
    lacks = f", it takes {counted.lacks}" if what == "remind" else ""
    log.warning("%s version %s: %s%s; %s", request.agent, request.version, audited, lacks, request.link)
    place.events.emit(about(request, name, now, **detail))
    if what == "reject":
        try:
            if named(place, "challenger") == request.version:
                drop_alias(place, "challenger")
        except PawlError as e:  # the alias is for people; what decides is written
            log.warning("the alias challenger of %s was not dropped: %s", request.agent, e)
