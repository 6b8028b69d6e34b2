"""A code that somebody pasted into another product's page: taken once, whoever finds it first."""

from __future__ import annotations

import hashlib
from typing import Literal, NamedTuple

from pawl.errors import ApprovalInvalid
from pawl.registry.approvals import Tally, answer_by_code, tally
from pawl.registry.codes import read_code
from pawl.rollout.control import Approval, ControlStore, Request
from pawl.rollout.events import Event, about

CODE_TAG, ANSWER_TAG = "approval_code", "approval_answer"


class Taken(NamedTuple):
    """What a pasted text came to."""

    approval: Approval | None  # None: it answered nothing
    counted: Tally  # the request afterwards
    why: str = ""  # it answered nothing
    fresh: bool = True  # nobody took this text before

    def told(self) -> str:
        """In words, for where it was pasted."""
        if self.approval is None:
            return f"refused: {self.why}"
        lacks = f"; it takes {self.counted.lacks}" if self.counted.standing == "waiting" else ""
        return f"accepted: {self.approval.verdict} by {self.approval.by}{lacks}"

    def event(self, request: Request, now: float) -> Event:
        """For those who act on it."""
        if self.approval is None:
            return about(request, "pawl.approval.refused", now, why=self.why)
        granted = self.counted.standing == "approved"
        return about(
            request,
            "pawl.approval.granted" if granted else "pawl.approval.answered",
            now,
            verdict=self.approval.verdict,
            by=self.approval.by,
            via=self.approval.via,
            standing=self.counted.standing,
            lacks=self.counted.lacks,
        )


def take_code(
    control: ControlStore, request: Request, text: str, now: float, via: Literal["mlflow", "prefect"]
) -> Taken:
    """Verify and spend a pasted code. One that was taken for this request before counts as it did then."""

    def counted() -> Tally:
        return tally(request, control.approvals(request.agent, request.version), now)

    known = _known(control, request, text)
    if known is not None:
        return Taken(known, counted(), fresh=False)
    try:
        made = answer_by_code(control, request, text, now, via)
    except ApprovalInvalid as e:
        # Another reader of the same page may have spent it a moment ago.
        known = _known(control, request, text)
        if known is not None:
            return Taken(known, counted(), fresh=False)
        # What was refused is looked at again and again; it is audited once.
        seen = hashlib.sha256(f"{request.agent}\0{request.version}\0{request.evidence}\0{text}".encode()).hexdigest()
        fresh = control.spend_code(f"refused-{seen}", now)
        if fresh:
            told = {"agent": request.agent, "version": request.version, "via": via, "why": str(e)}
            control.audit("approval code refused", via, told, now)
        return Taken(None, counted(), str(e), fresh)
    return Taken(made, counted())


def _known(control: ControlStore, request: Request, text: str) -> Approval | None:
    try:
        code = read_code(control.secret("approval"), text)
    except ApprovalInvalid:
        return None
    given = control.approvals(request.agent, request.version)
    return next((a for a in given if a.id == f"code-{code.nonce}" and a.evidence == request.evidence), None)
