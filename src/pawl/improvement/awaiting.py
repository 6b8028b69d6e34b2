"""What a run that waits for a person shows, and what becomes of what they paste into it."""

from __future__ import annotations

import time
from typing import Literal

import msgspec

from pawl.improvement.workplace import Workplace
from pawl.registry.approvals import tally
from pawl.registry.pasted import take_code
from pawl.rollout.control import Request

Outcome = Literal["waiting", "approved", "rejected", "held", "void"]


class Waiting(msgspec.Struct, frozen=True):
    """Where a request on some evidence stands. `void`: it is asked on other evidence now, or was forced."""

    outcome: Outcome
    told: str
    seconds_left: float = 0.0


def look(place: Workplace, version: str, evidence: str, now: float) -> Waiting:
    """Where the request for a version stands, as far as it is about this evidence."""
    request = place.control.request(place.agent_name, version)
    if request is None or request.evidence != evidence or request.override_by is not None:
        return Waiting("void", "this is not asked any more: other evidence is, or an operator forced the version")
    counted = tally(request, place.control.approvals(place.agent_name, version), now)
    if counted.standing == "rejected" or place.control.rejection(request.adapter_sha256) is not None:
        return Waiting("rejected", place.control.rejection(request.adapter_sha256) or "rejected")
    if counted.standing == "approved":
        return Waiting("approved", f"approved by {', '.join(counted.yes)}")
    if counted.standing == "expired" or request.closed_at is not None:
        return Waiting("held", "nobody answered in time: the champion goes on, and nothing is rolled out")
    return Waiting("waiting", counted.lacks, request.expires - now)


def take(place: Workplace, version: str, evidence: str, text: str, now: float) -> str:
    """Verify and spend what was pasted; what it came to, in words. The same text again comes to the same."""
    request = place.control.request(place.agent_name, version)
    if request is None or request.evidence != evidence:
        return "refused: other evidence is asked about now"
    taken = take_code(place.control, request, text, now, "prefect")
    if taken.fresh:
        place.events.emit(taken.event(request, now))
    return taken.told()


def shown(place: Workplace, request: Request, last: str) -> str:
    """The text above the form, in Markdown. What a person must do is said first."""
    until = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(request.expires))
    page = place.settings.reports_dir / f"{request.candidate}-evidence.html"
    lines = [
        f"**Version {request.version} of {request.agent} waits for a person, until {until}.**",
        "",
        f"Evidence `{request.evidence}`" + (f", [in the registry]({request.link})" if request.link else ""),
        *([f"Page: `{page}`"] if request.candidate else []),
        f"Training started by: {request.starter or 'unknown'}. People who must say yes: {request.quorum}.",
        "",
        "Nobody here knows who clicks, so paste a single-use code that carries your name:",
        "",
        f"    pawl approve {request.agent} {request.version} --code",
        f"    pawl reject {request.agent} {request.version} --code --reason '...'",
        *(["", f"What was pasted last: {last}"] if last else []),
    ]
    return "\n".join(lines)
