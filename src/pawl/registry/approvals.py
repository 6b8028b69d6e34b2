"""One rule for approvals, whichever way they come in."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from typing import Literal

from pawl.errors import ApprovalInvalid, NotAllowed
from pawl.registry.codes import Code, make_code, read_code
from pawl.rollout.control import Approval, ControlStore, Key, Request

Standing = Literal["waiting", "approved", "rejected", "expired"]
MAY_APPROVE = ("approver", "admin")


def standing(request: Request, approvals: Sequence[Approval], now: float, quorum: int = 1) -> Standing:
    """Where a request stands (pure).

    Only approvals of this version and of the evidence asked for count, each person once, until they expire. One
    rejection of that evidence rejects.
    """
    mine = [
        a for a in approvals if (a.agent, a.version, a.evidence) == (request.agent, request.version, request.evidence)
    ]
    if any(a.verdict == "rejected" for a in mine):
        return "rejected"
    people = {a.by for a in mine if a.verdict == "approved" and now < a.expires}
    if len(people) >= quorum and now < request.expires:
        return "approved"
    return "waiting" if now < request.expires else "expired"


def approve_by_key(control: ControlStore, request: Request, key: Key, *, expires: float, now: float) -> Approval:
    """Approve with a key of role approver or admin. NotAllowed for other roles, ApprovalInvalid when it is too late."""
    return _record(control, request, key, "approved", "", min(expires, request.expires), now)


def reject_by_key(control: ControlStore, request: Request, key: Key, *, reason: str, now: float) -> Approval:
    """Reject with a reason; the adapter's hash is remembered, so that it cannot come back unseen."""
    if not reason.strip():
        raise ApprovalInvalid("a rejection needs a reason")
    made = _record(control, request, key, "rejected", reason, request.expires, now)
    control.reject_adapter(request.adapter_sha256, request.agent, f"{key.name}: {reason}", now)
    return made


def code_for(control: ControlStore, request: Request, key: Key, expires: float) -> str:
    """A single-use code for this request and its evidence, carrying the key's name."""
    _demand_role(key)
    code = Code(
        request.agent,
        request.version,
        request.evidence,
        key.name,
        min(expires, request.expires),
        secrets.token_urlsafe(12),
    )
    return make_code(control.secret("approval"), code)


def approve_by_code(control: ControlStore, request: Request, text: str, now: float) -> Approval:
    """Approve by a code pasted into a UI. ApprovalInvalid says why it approves nothing."""
    code = read_code(control.secret("approval"), text)
    if (code.agent, code.version) != (request.agent, request.version):
        raise ApprovalInvalid(f"this code is for {code.agent} version {code.version}")
    if code.evidence != request.evidence:
        raise ApprovalInvalid("the evidence changed after this code was made; look at the report and make a new one")
    if now >= code.expires or now >= request.expires:
        raise ApprovalInvalid("this code, or what it approves, has expired; make a new one")
    if not control.spend_code(code.nonce, now):
        raise ApprovalInvalid("this code was used before; make a new one")
    made = Approval(
        id=secrets.token_hex(8),
        agent=code.agent,
        version=code.version,
        evidence=code.evidence,
        verdict="approved",
        by=code.by,
        at=now,
        expires=code.expires,
        via="code",
    )
    control.record_approval(made)
    control.audit("approved", made.by, {"agent": made.agent, "version": made.version, "via": "code"}, now)
    return made


def _record(
    control: ControlStore,
    request: Request,
    key: Key,
    verdict: Literal["approved", "rejected"],
    reason: str,
    expires: float,
    now: float,
) -> Approval:
    _demand_role(key)
    if now >= request.expires:
        raise ApprovalInvalid(
            f"the request for {request.agent} version {request.version} has expired; run the week again"
        )
    made = Approval(
        id=secrets.token_hex(8),
        agent=request.agent,
        version=request.version,
        evidence=request.evidence,
        verdict=verdict,
        by=key.name,
        at=now,
        expires=expires,
        reason=reason,
    )
    control.record_approval(made)
    detail = {"agent": made.agent, "version": made.version, "evidence": made.evidence, "reason": reason}
    control.audit(verdict, key.name, detail, now)
    return made


def _demand_role(key: Key) -> None:
    if key.role not in MAY_APPROVE or key.revoked:
        raise NotAllowed(f"the key {key.name!r} has role {key.role}; approving needs {' or '.join(MAY_APPROVE)}")
