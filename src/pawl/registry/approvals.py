"""Who approved what: the standing of a request, and the ways to give a verdict."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple

from pawl.errors import ApprovalInvalid, NotAllowed
from pawl.registry.codes import make_code, read_code
from pawl.rollout.control import SCHEDULE, Approval, ControlStore, Key, Request
from pawl.rollout.state import Rollout

Standing = Literal["waiting", "approved", "rejected", "expired"]
Verdict = Literal["approved", "rejected"]
APPROVERS = ("approver", "admin")


def starting_pointer(run: str) -> str:
    """Name of the control database's pointer that keeps who started an orchestrated run."""
    return f"started:{run}"


class Tally(NamedTuple):
    """Where a request stands, and why."""

    standing: Standing
    yes: tuple[str, ...]  # people whose yes counts now, in the order in which they gave it
    no: tuple[str, ...]
    lacks: str  # what an approval still takes; "" where nothing


def tally(request: Request, approvals: Iterable[Approval], now: float) -> Tally:
    """Where a request stands at `now` (epoch seconds; pure).

    Verdicts count for the evidence they were given on, so changed evidence voids them. Each person's latest verdict
    counts. One no is enough and does not expire; a yes counts until its own expiry, and only if it was given before
    the request's. As many different people as the request's quorum must say yes; where its starter may not approve
    alone, one of them must be somebody else, and where nobody knows the starter there must be two.
    """
    latest: dict[str, Approval] = {}
    for a in sorted(approvals, key=lambda a: a.at):
        mine = (a.agent, a.version, a.evidence) == (request.agent, request.version, request.evidence)
        if mine and a.at <= now:
            latest[a.by] = a
    no = tuple(a.by for a in latest.values() if a.verdict == "rejected")
    given = [a for a in latest.values() if a.verdict == "approved" and now < a.expires and a.at < request.expires]
    yes = tuple(a.by for a in sorted(given, key=lambda a: a.at))
    lacks = _lacks(request, yes)
    if no:
        return Tally("rejected", yes, no, lacks)
    if not lacks:
        return Tally("approved", yes, no, "")
    return Tally("waiting" if now < request.expires else "expired", yes, no, lacks)


def standing(request: Request, approvals: Iterable[Approval], now: float) -> Standing:
    """The tally's first word (pure)."""
    return tally(request, approvals, now).standing


def _lacks(request: Request, yes: Sequence[str]) -> str:
    if len(yes) < request.quorum:
        return f"{request.quorum - len(yes)} more of {request.quorum}"
    if request.starter_alone or request.starter == SCHEDULE:
        return ""
    if not request.starter:
        return "" if len(yes) > 1 else "a second person: nobody knows who started the training"
    return "" if set(yes) - {request.starter} else f"somebody other than {request.starter}, who started the training"


def unanswered(requests: Iterable[Request], rollouts: Iterable[Rollout]) -> list[Request]:
    """Requests that are not closed and have led to no rollout since they were asked, oldest first (pure)."""
    begun: dict[tuple[str, str], float] = {}
    for r in rollouts:
        begun[r.agent, r.version] = max(r.opened_at, begun.get((r.agent, r.version), 0.0))
    found = [r for r in requests if r.closed_at is None and begun.get((r.agent, r.version), float("-inf")) < r.asked_at]
    return sorted(found, key=lambda r: r.asked_at)


def approve_by_key(control: ControlStore, request: Request, key: Key, *, expires: float, now: float) -> Approval:
    """Record a yes given with a key. NotAllowed for other roles, ApprovalInvalid where it would approve nothing."""
    _demand_role(key)
    _demand_open(control, request, now)
    _demand_time(expires, now)
    return _record(control, _verdict(request, key.name, "approved", now, expires), request, key.id)


def reject_by_key(control: ControlStore, request: Request, key: Key, *, reason: str, now: float) -> Approval:
    """Record a no given with a key, at any time; the adapter's hash is remembered, so it cannot come back unseen.

    NotAllowed for other roles, ApprovalInvalid without a reason.
    """
    _demand_role(key)
    _demand_reason(reason)
    return _record(control, _verdict(request, key.name, "rejected", now, request.expires, reason), request, key.id)


def code_for(
    control: ControlStore,
    request: Request,
    key: Key,
    *,
    expires: float,
    now: float,
    verdict: Verdict = "approved",
    reason: str = "",
) -> str:
    """A single-use code that answers this request on this evidence. Making one is audited; the code is not."""
    _demand_role(key)
    _demand_time(expires, now)
    if verdict == "approved":
        _demand_open(control, request, now)
    else:
        _demand_reason(reason)
    made = make_code(
        control.secret("approval"),
        agent=request.agent,
        version=request.version,
        evidence=request.evidence,
        by=key.name,
        key_id=key.id,
        expires=expires,
        verdict=verdict,
        reason=reason.strip(),
    )
    detail = {"agent": request.agent, "version": request.version, "evidence": request.evidence, "key": key.id}
    control.audit("approval code made", key.name, {**detail, "verdict": verdict}, now)
    return made


def answer_by_code(
    control: ControlStore, request: Request, text: str, now: float, via: Literal["mlflow", "prefect"]
) -> Approval:
    """Record the verdict that a code carries, and spend it. ApprovalInvalid says why a code answers nothing.

    The nonce is spent before the verdict is written: a crash in between costs a code, never answers twice.
    """
    code = read_code(control.secret("approval"), text)
    if (code.agent, code.version) != (request.agent, request.version):
        raise ApprovalInvalid(f"this code is for {code.agent} version {code.version}, not this one")
    if code.evidence != request.evidence:
        raise ApprovalInvalid("this code was given on other evidence: read the present report and make a new one")
    if now >= code.expires:
        raise ApprovalInvalid("this code has expired: make a new one")
    if code.verdict == "approved":
        _demand_open(control, request, now)
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
        verdict=code.verdict,
        by=code.by,
        at=now,
        expires=code.expires if code.verdict == "approved" else request.expires,
        reason=code.reason,
        via=via,
    )
    return _record(control, approval, request, code.key_id)


def _verdict(request: Request, by: str, verdict: Verdict, now: float, expires: float, reason: str = "") -> Approval:
    return Approval(
        id=f"approval-{uuid.uuid4().hex}",
        agent=request.agent,
        version=request.version,
        evidence=request.evidence,
        verdict=verdict,
        by=by,
        at=now,
        expires=expires,
        reason=reason.strip(),
    )


def _demand_role(key: Key) -> None:
    if key.revoked or key.role not in APPROVERS:
        state = "is revoked" if key.revoked else f"has role {key.role}"
        raise NotAllowed(f"the key {key.name!r} {state}; a verdict needs a key with role approver or admin")


def _demand_open(control: ControlStore, request: Request, now: float) -> None:
    why = control.rejection(request.adapter_sha256)
    if why is not None:
        raise ApprovalInvalid(
            f"{request.adapter} was rejected ({why}) and an approval does not bring it back: train another, or an "
            "operator forces it with `pawl rollout force`"
        )
    if now >= request.expires or request.closed_at is not None:
        raise ApprovalInvalid(
            f"the request for version {request.version} has expired: ask again with "
            f"`pawl approvals renew {request.agent} {request.version}`"
        )


def _demand_time(expires: float, now: float) -> None:
    if expires <= now:
        raise ApprovalInvalid("this answer would have expired already: give it some hours")


def _demand_reason(reason: str) -> None:
    if not reason.strip():
        raise ApprovalInvalid("a rejection needs a reason: --reason 'why'")


def _record(control: ControlStore, approval: Approval, request: Request, key_id: str) -> Approval:
    if approval.verdict == "rejected":
        # First: a crash in between must not leave a no whose adapter may come back.
        control.reject_adapter(request.adapter_sha256, request.agent, f"{approval.by}: {approval.reason}", approval.at)
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
    return approval
