"""The request for approval: asked, asked anew, answered through the registry; and the operator's override."""

from __future__ import annotations

import logging
import time

import msgspec

from pawl.bootstrap import current_route
from pawl.errors import ApprovalInvalid, NotAllowed, PawlError
from pawl.improvement.champion_serving import adapter_name
from pawl.improvement.workplace import Workplace
from pawl.registry.approvals import APPROVERS, standing, unanswered
from pawl.registry.pasted import ANSWER_TAG, CODE_TAG, take_code
from pawl.registry.port import Version
from pawl.rollout.control import Key, Request
from pawl.rollout.events import Name, about

FORCED_S = 3600.0  # an operator's order is meant for now
log = logging.getLogger("pawl.approvals")


def ask(place: Workplace, version: Version, evidence: str, *, starter: str, candidate: str, now: float) -> str:
    """Ask for approval of a version on this evidence, unless that is asked already; returns why not, "" where asked.

    A request on other evidence, or one that nobody answered in time, is asked anew: verdicts given on other evidence
    are void. An adapter that was rejected is not asked for: an operator may force it.
    """
    control, agent = place.control, place.agent_name
    why = control.rejection(version.sha256)
    if why is not None:
        detail = {"agent": agent, "version": version.number, "adapter_sha256": version.sha256, "rejected": why}
        control.audit("rejected adapter came back", "improve_agent", detail, now)
        log.warning("%s was rejected before (%s): no approval is asked for it", version.adapter, why)
        return f"rejected before: {why}"
    route = current_route(place.fleet, control, place.agent)
    if version.adapter in {route.champion.name, route.challenger.name if route.challenger else ""}:
        return "it serves already"
    known = control.request(agent, version.number)
    if known is not None and known.evidence == evidence:
        rolled_out = any(r.version == version.number and r.opened_at >= known.asked_at for r in control.rollouts(agent))
        if rolled_out or (known.closed_at is None and now < known.expires):
            return ""
    spec = place.agent.approval
    request = Request(
        agent=agent,
        version=version.number,
        adapter=version.adapter,
        adapter_sha256=version.sha256,
        evidence=evidence,
        asked_at=now,
        expires=now + spec.hours * 3600,
        quorum=spec.quorum,
        starter=starter,
        starter_alone=spec.starter_alone,
        candidate=candidate,
        link=place.registry.url(version),
    )
    _put(place, request, known, "improve_agent", now)
    return ""


def renew(place: Workplace, number: str, key: Key, now: float) -> Request:
    """Ask again on the same evidence, under the fleet's present terms, after nobody answered in time.

    NotAllowed for other roles, ApprovalInvalid where nothing was asked, it waits still, was rejected or forced.
    """
    if key.role not in (*APPROVERS, "operator"):
        raise NotAllowed(f"the key {key.name!r} has role {key.role}; asking again needs operator, approver or admin")
    known = place.control.request(place.agent_name, number)
    if known is None:
        raise ApprovalInvalid(f"{place.agent_name} version {number} asks for no approval; see `pawl approvals`")
    if known.override_by is not None:  # past a gate that said no: no approver was ever asked
        raise ApprovalInvalid(f"version {number} was forced by {known.override_by}; `pawl rollout force` does so again")
    why = place.control.rejection(known.adapter_sha256)
    if why is not None:
        raise ApprovalInvalid(f"{known.adapter} was rejected ({why}); only `pawl rollout force` brings it back")
    if known.closed_at is None and now < known.expires:
        raise ApprovalInvalid(f"version {number} waits still; see `pawl approvals`")
    spec = place.agent.approval
    again = msgspec.structs.replace(
        known,
        asked_at=now,
        expires=now + spec.hours * 3600,
        quorum=spec.quorum,
        starter_alone=spec.starter_alone,
        reminded_at=None,
        closed_at=None,
        closed_as="",
    )
    _put(place, again, known, key.name, now)
    return again


def _put(place: Workplace, request: Request, known: Request | None, by: str, now: float) -> None:
    _write(place, request, known)
    told = {"agent": request.agent, "version": request.version, "evidence": request.evidence}
    if known is not None and known.evidence != request.evidence:
        _tell_void(place, known, request.evidence, by, now)
    terms = {"expires": request.expires, "quorum": request.quorum, "starter": request.starter}
    place.control.audit("approval asked", by, told | terms, now)
    place.events.emit(about(request, "pawl.approval.asked", now, **terms))


def _write(place: Workplace, request: Request, known: Request | None) -> None:
    if known is None:
        place.control.ask(request)
    else:
        place.control.amend_request(known, request)


def _tell_void(place: Workplace, known: Request, evidence: str, by: str, now: float, **more: str) -> None:
    void = sorted({a.by for a in place.control.approvals(known.agent, known.version)})
    told = {"agent": known.agent, "version": known.version, "evidence": evidence, "was": known.evidence, "of": void}
    place.control.audit("approvals void: other evidence", by, told | more, now)


def withdraw(place: Workplace, version: Version, evidence: str, decision: str, now: float) -> None:
    """The gate no more says promote, on this other evidence: what still waits on the earlier one is closed, and what
    was approved is void. An operator's order stands."""
    known = place.control.request(place.agent_name, version.number)
    if known is None or known.evidence == evidence or known.override_by is not None:
        return
    if known not in unanswered([known], place.control.rollouts(place.agent_name)):
        return
    closed = msgspec.structs.replace(known, closed_at=now, closed_as="rejected" if decision == "reject" else "held")
    place.control.amend_request(known, closed)
    _tell_void(place, known, evidence, "improve_agent", now, gate=decision)
    name: Name = "pawl.approval.rejected" if decision == "reject" else "pawl.approval.held"
    place.events.emit(about(closed, name, now, gate=decision))


def force(place: Workplace, number: str, key: Key, reason: str, skips: tuple[str, ...]) -> Request:
    """An operator's explicit order to roll out past the gate (and past shadow): recorded, never silent.

    It brings back a rejected adapter too; why that was rejected stands in the audit entry.

    Raises:
        NotAllowed: the key's role may not.
        ApprovalInvalid: no reason; the version serves already; a rollout is open, behind which the order would lapse.
        StaleWrite: the version's request changed at this moment.
    """
    if key.role not in ("operator", "admin"):
        raise NotAllowed(f"the key {key.name!r} has role {key.role}; an override needs operator or admin")
    if not reason.strip():
        raise ApprovalInvalid("an override needs a reason: --reason 'why'")
    agent = place.agent_name
    version = place.registry.version(agent, number)
    if version.adapter == adapter_name(current_route(place.fleet, place.control, place.agent).champion.name):
        raise ApprovalInvalid(f"{version.adapter} serves {agent} already")
    running = place.control.open_rollout(agent)
    if running is not None:
        raise ApprovalInvalid(
            f"version {running.version} of {agent} is being rolled out: wait for its end, or "
            f"`pawl rollout abort {agent}`"
        )
    now, known = time.time(), place.control.request(agent, number)
    request = Request(
        agent=agent,
        version=number,
        adapter=version.adapter,
        adapter_sha256=version.sha256,
        evidence=version.tags.get("evidence", ""),
        asked_at=now,
        expires=now + FORCED_S,
        override_by=key.name,
        override_reason=reason,
        skips=skips,
        starter=known.starter if known else "",
        candidate=known.candidate if known else "",
        link=place.registry.url(version),
    )
    _write(place, request, known)
    detail = {"agent": agent, "version": number, "reason": reason, "skips": list(skips)}
    rejected = place.control.rejection(version.sha256)
    place.control.audit("override", key.name, detail | ({"rejected": rejected} if rejected else {}), now)
    return request


def ready(place: Workplace, now: float) -> Request | None:
    """The oldest request that may open a rollout now: approved, or forced; None where there is none.

    Codes pasted as a tag on the version in the registry's UI are read, verified and spent here, whatever became of
    the registry's own message about them.
    """
    for request in unanswered(place.control.requests(), place.control.rollouts(place.agent_name)):
        if request.agent != place.agent_name:
            continue
        if request.override_by is not None:
            if now < request.expires:
                return request
            continue
        try:
            read_tag(place, request, now)
        except PawlError as e:  # without the registry, what is recorded here still counts
            log.warning("the tags of %s could not be read: %s", request.adapter, e)
        if may_open(place, request, now):
            return request
    return None


def may_open(place: Workplace, request: Request, now: float) -> bool:
    """Whether a rollout may be opened for it: forced in time, or approved and its adapter never rejected."""
    if request.closed_at is not None:
        return False
    if request.override_by is not None:
        return now < request.expires
    approvals = place.control.approvals(request.agent, request.version)
    return standing(request, approvals, now) == "approved" and place.control.rejection(request.adapter_sha256) is None


def read_tag(place: Workplace, request: Request, now: float) -> None:
    """Verify and spend a code that was pasted as a tag, and answer by another tag. What was answered stays."""
    tags = place.registry.version(request.agent, request.version).tags
    code = tags.get(CODE_TAG)
    # The answer names the code's end, so that a corrected code is read and the same one is not read twice.
    if not code or f"(code ending {code[-8:]})" in tags.get(ANSWER_TAG, ""):
        return
    taken = take_code(place.control, request, code, now, "mlflow")
    answer = f"{taken.told()} (code ending {code[-8:]})"
    place.registry.tag(request.agent, request.version, ANSWER_TAG, answer[-4000:])
    if taken.fresh:
        place.events.emit(taken.event(request, now))
