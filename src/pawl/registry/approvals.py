"""Who approved what: the standing of a request, and the ways to give a verdict."""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from typing import Literal

from pawl.errors import ApprovalInvalid, NotAllowed
from pawl.registry.codes import make_code, read_code
from pawl.rollout.control import Approval, ControlStore, Key, Request

Standing = Literal["waiting", "approved", "rejected", "expired"]
APPROVERS = ("approver", "admin")


def standing(request: Request, approvals: Iterable[Approval], now: float, quorum: int = 1) -> Standing:
    """Where a request stands at `now` (epoch seconds; pure).

    Verdicts count for the evidence they were given on, so changed evidence voids them. Each person's latest verdict
    counts. One no is enough and does not expire; a yes counts until its own expiry, and only if it was given before
    the request's. `quorum` different people must say yes.
    """
    latest: dict[str, Approval] = {}
    for a in sorted(approvals, key=lambda a: a.at):
        mine = (a.agent, a.version, a.evidence) == (request.agent, request.version, request.evidence)
        if mine and a.at <= now:
            latest[a.by] = a
    if any(a.verdict == "rejected" for a in latest.values()):
        return "rejected"
    yes = [a for a in latest.values() if a.verdict == "approved" and now < a.expires and a.at < request.expires]
    if len(yes) >= quorum:
        return "approved"
    return "waiting" if now < request.expires else "expired"


def approve_by_key(control: ControlStore, request: Request, key: Key, *, expires: float, now: float) -> Approval:
    """Record a yes given with a key. NotAllowed for other roles, ApprovalInvalid where it would approve nothing."""
    _demand(request, key, expires, now)
    approval = Approval(
        id=f"approval-{uuid.uuid4().hex}",
        agent=request.agent,
        version=request.version,
        evidence=request.evidence,
        verdict="approved",
        by=key.name,
        at=now,
        expires=expires,
    )
    _record(control, approval, key.id)
    return approval


def reject_by_key(control: ControlStore, request: Request, key: Key, *, reason: str, now: float) -> Approval:
    """Record a no given with a key, at any time; the adapter's hash is remembered, so it cannot come back unseen."""
    _demand_role(key)
    approval = Approval(
        id=f"approval-{uuid.uuid4().hex}",
        agent=request.agent,
        version=request.version,
        evidence=request.evidence,
        verdict="rejected",
        by=key.name,
        at=now,
        expires=request.expires,
        reason=reason,
    )
    _record(control, approval, key.id)
    control.reject_adapter(request.adapter_sha256, request.agent, f"{key.name}: {reason}", now)
    return approval


def code_for(control: ControlStore, request: Request, key: Key, *, expires: float, now: float) -> str:
    """A single-use code that says yes to this request on this evidence. Making one is audited; the code is not."""
    _demand(request, key, expires, now)
    made = make_code(
        control.secret("approval"),
        agent=request.agent,
        version=request.version,
        evidence=request.evidence,
        by=key.name,
        key_id=key.id,
        expires=expires,
    )
    detail = {"agent": request.agent, "version": request.version, "evidence": request.evidence, "key": key.id}
    control.audit("approval code made", key.name, detail, now)
    return made


def approve_by_code(control: ControlStore, request: Request, text: str, now: float) -> Approval:
    """Record the yes that a code carries, and spend it. ApprovalInvalid says why a code approves nothing.

    The nonce is spent before the approval is written: a crash in between costs a code, never approves twice.
    """
    code = read_code(control.secret("approval"), text)
    if (code.agent, code.version) != (request.agent, request.version):
        raise ApprovalInvalid(f"this code approves {code.agent} version {code.version}, not this one")
    if code.evidence != request.evidence:
        raise ApprovalInvalid("this code was given on other evidence: read the present report and make a new one")
    if now >= code.expires:
        raise ApprovalInvalid("this code has expired: make a new one")
    if now >= request.expires:
        raise ApprovalInvalid("the request has expired: run the promotion again")
    stored = control.keys()
    maker = next((k for k in stored if k.id == code.key_id), None)
    if maker is None or maker.revoked or maker.role not in APPROVERS:
        raise ApprovalInvalid(f"the key of {code.by} that made this code was revoked: ask an approver")
    if not control.spend_code(code.nonce, now):
        raise ApprovalInvalid("this code was used before: make a new one")
    approval = Approval(
        id=f"code-{code.nonce}",
        agent=code.agent,
        version=code.version,
        evidence=code.evidence,
        verdict="approved",
        by=code.by,
        at=now,
        expires=code.expires,
        via="code",
    )
    _record(control, approval, code.key_id)
    return approval


def _demand_role(key: Key) -> None:
    if key.revoked or key.role not in APPROVERS:
        state = "is revoked" if key.revoked else f"has role {key.role}"
        raise NotAllowed(f"the key {key.name!r} {state}; a verdict needs a key with role approver or admin")


def _demand(request: Request, key: Key, expires: float, now: float) -> None:
    _demand_role(key)
    if now >= request.expires:
        raise ApprovalInvalid(f"the request for version {request.version} has expired: run the promotion again")
    if expires <= now:
        raise ApprovalInvalid("this approval would have expired already: give it some hours")


def _record(control: ControlStore, approval: Approval, key_id: str) -> None:
    control.record_approval(approval)
    detail = {
        "agent": approval.agent,
        "version": approval.version,
        "evidence": approval.evidence,
        "via": approval.via,
        "key": key_id,
        "reason": approval.reason,
    }
    control.audit(f"version {approval.verdict}", approval.by, detail, approval.at)
