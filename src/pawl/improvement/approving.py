"""The request for approval: whether it may open a rollout by now, and the operator's override."""

from __future__ import annotations

import time

from pawl.errors import ApprovalInvalid, NotAllowed
from pawl.improvement.workplace import Workplace
from pawl.registry.approvals import standing
from pawl.rollout.control import Key, Request


def force(place: Workplace, number: str, key: Key, reason: str, skips: tuple[str, ...]) -> Request:
    """An operator's explicit order to roll out past the gate (and past shadow): recorded, never silent."""
    if key.role not in ("operator", "admin"):
        raise NotAllowed(f"the key {key.name!r} has role {key.role}; an override needs operator or admin")
    if not reason.strip():
        raise ApprovalInvalid("an override needs a reason: --reason 'why'")
    version = place.registry.version(place.agent_name, number)
    now = time.time()
    request = Request(
        agent=place.agent_name,
        version=number,
        adapter=version.adapter,
        adapter_sha256=version.sha256,
        evidence=version.tags.get("evidence", ""),
        asked_at=now,
        expires=now + 3600,
        override_by=key.name,
        override_reason=reason,
        skips=skips,
    )
    place.control.ask(request)
    detail = {"agent": place.agent_name, "version": number, "reason": reason, "skips": list(skips)}
    place.control.audit("override", key.name, detail, now)
    return request


def ready(place: Workplace, now: float) -> Request | None:
    """The oldest request that may open a rollout now: approved, or forced; None where there is none.

    Codes pasted as a tag on the version in the registry's UI are read, verified and spent here.
    """
    started = {r.version for r in place.control.rollouts(place.agent_name)}
    for request in sorted(place.control.requests(), key=lambda r: r.asked_at):
        if request.agent != place.agent_name or request.version in started:
            continue
        if request.override_by is not None:
            if now < request.expires:
                return request
            continue
        _read_tag(place, request, now)
        approvals = place.control.approvals(request.agent, request.version)
        if standing(request, approvals, now) == "approved":
            return request
    return None


def _read_tag(place: Workplace, request: Request, now: float) -> None:
    from pawl.registry.approvals import approve_by_code

    version = place.registry.version(request.agent, request.version)
    code = version.tags.get("approval_code")
    if not code or f"(code ending {code[-8:]})" in version.tags.get("approval_answer", ""):
        return
    try:
        approve_by_code(place.control, request, code, now)
        answer = "accepted"
    except ApprovalInvalid as e:
        answer = f"refused: {e}"
        place.control.audit("approval code refused", "registry tag", {"version": request.version, "why": str(e)}, now)
    # The answer names the code's end, so that a corrected code is read and the same one is not read twice.
    place.registry.tag(request.agent, request.version, "approval_answer", f"{answer} (code ending {code[-8:]})"[:4000])
