"""One rollout from its opening to its end: opened, moved on by evidence, settled in the registry."""

from __future__ import annotations

import logging
import time
import uuid
from contextlib import suppress

from pawl.bootstrap import current_route
from pawl.errors import ApprovalInvalid, NotThere, StaleWrite
from pawl.improvement.alias_watch import drop as drop_alias
from pawl.improvement.alias_watch import move as move_alias
from pawl.improvement.alias_watch import named
from pawl.improvement.approving import may_open
from pawl.improvement.placing import present, release
from pawl.improvement.workplace import Workplace
from pawl.rollout.control import AuditEntry, Request
from pawl.rollout.route import Arm
from pawl.rollout.state import Override, Rollout

log = logging.getLogger("pawl.rollout")


def open_rollout(place: Workplace, request: Request) -> Rollout:
    """Bring the adapter onto the serving cluster, verify it there, then open the rollout.

    ApprovalInvalid where the request may not, or not any more, open one, and where the registry's version is not what
    was asked about.
    """
    asked = _still_open(place, request)
    version = place.registry.version(request.agent, request.version)
    if (version.adapter, version.sha256) != (request.adapter, request.adapter_sha256):
        # Whoever changes a tag and the files with it must not come in on an approval of other weights.
        raise ApprovalInvalid(
            f"the registry says that version {request.version} is {version.adapter} ({version.sha256[:12]}), people "
            f"answered about {request.adapter} ({request.adapter_sha256[:12]}): look who changed it"
        )
    arm = Arm(version.adapter, place.fleet.local_upstream, version.adapter, "local")
    present(place, version)
    try:
        asked = _still_open(place, request)  # that took its time, and a no may have come
    except ApprovalInvalid:
        release(place, version.adapter)
        raise
    now = time.time()
    route = current_route(place.fleet, place.control, place.agent)
    override = None
    if asked.override_by is not None:
        override = Override(asked.override_by, asked.override_reason, now, asked.skips)
    spec = place.agent.rollout
    stage = str(spec.stages[0]) if "shadow" in asked.skips or not spec.min_shadow_pairs else "shadow"
    rollout = Rollout(
        id=f"rollout-{uuid.uuid4().hex[:12]}",
        agent=request.agent,
        version=request.version,
        champion=route.champion,
        challenger=arm,
        stage=stage,
        opened_at=now,
        stage_since=now,
        spec=spec,
        keep_shadow=route.shadows,
        override=override,
        route_revision=route.revision,  # what serves then is what it goes back to
    )
    detail = {"rollout": rollout.id, "version": request.version, "stage": stage}
    return place.control.save_rollout(rollout, AuditEntry("rollout opened", "roll_out", detail, now))


def _still_open(place: Workplace, request: Request) -> Request:
    """The request as it stands now. ApprovalInvalid where it is about something else, or opens nothing."""
    asked = place.control.request(request.agent, request.version)
    same = asked is not None and (asked.evidence, asked.adapter_sha256, asked.override_by) == (
        request.evidence, request.adapter_sha256, request.override_by
    )  # fmt: skip
    if asked is None or not same or not may_open(place, asked, time.time()):
        raise ApprovalInvalid(f"{request.adapter} has no approval that counts now; see `pawl approvals`")
    return asked


def advance(place: Workplace, now: float | None = None) -> tuple[Rollout, str] | None:
    """One tick of the open rollout: gather evidence, decide, move. None where none is open."""
    from pawl.rollout.decide import decide
    from pawl.rollout.evidence import gather
    from pawl.rollout.state import move

    rollout = place.control.open_rollout(place.agent_name)
    if rollout is None:
        return None
    at = time.time() if now is None else now
    seen = place.lake.interactions(place.agent_name, since=rollout.opened_at, until=None)
    said = place.lake.feedback(place.agent_name, since=rollout.opened_at, until=None)
    decision = decide(rollout, gather(rollout, seen, said), at)
    moved = move(rollout, decision, by="roll_out", now=at)
    if moved is rollout:
        return rollout, f"{decision.action}: {decision.reason}"
    detail = {"rollout": moved.id, "from": rollout.stage, "to": moved.stage, "why": decision.reason}
    try:
        saved = place.control.save_rollout(moved, AuditEntry("rollout moved", "roll_out", detail, at))
    except StaleWrite:
        return rollout, "another writer was first; the next tick looks again"
    return saved, f"{rollout.stage} -> {saved.stage}: {decision.reason}"


def settle(place: Workplace, rollout: Rollout) -> None:
    """After a rollout's end: move the aliases (success) or remember the adapter as rejected (rolled back).

    Aliases name adapter versions: where the base model or a cloud serves again they stay. A version that somebody
    deleted in the registry has nothing left to settle there.
    """
    remember(place, rollout)
    if rollout.version:
        try:
            _tell_registry(place, rollout)
        except NotThere as e:
            log.warning("%s is settled, but not in the registry: %s", rollout.id, e)
    with suppress(StaleWrite):  # another worker settled it at the same time
        place.control.move_pointer(_mark(rollout), 0, rollout.stage)


def _tell_registry(place: Workplace, rollout: Rollout) -> None:
    if rollout.stage == "done":
        before = named(place, "champion")
        if before and before != rollout.version:
            move_alias(place, "previous", before)
        move_alias(place, "champion", rollout.version)
        if before != rollout.version:
            detail = {"agent": place.agent_name, "version": rollout.version}
            place.control.audit("champion moved", "roll_out", detail, time.time())
    if _still_challenger(place, rollout.version):
        drop_alias(place, "challenger")
    place.registry.tag(place.agent_name, rollout.version, "rollout", rollout.stage)


def remember(place: Workplace, rollout: Rollout) -> None:
    """The adapter of a rollout that went back is rejected. Needs the registry only for one that nobody asked about."""
    agent = place.agent_name
    if rollout.stage != "rolled_back" or not rollout.version:
        return
    request = place.control.request(agent, rollout.version)
    sha256 = request.adapter_sha256 if request is not None else place.registry.version(agent, rollout.version).sha256
    why = rollout.history[-1].decision.reason if rollout.history else "rolled back"
    place.control.reject_adapter(sha256, agent, f"rolled back: {why}", time.time())


def _still_challenger(place: Workplace, version: str) -> bool:
    """Not where a newer one asks for approval by now; but where an end between the two writes of the drop left it."""
    expected = named(place, "challenger")
    found = None if expected else place.registry.by_alias(place.agent_name, "challenger")
    return expected == version or (found is not None and found.number == version)


def settled(place: Workplace, rollout: Rollout) -> bool:
    """Whether `settle` finished for this rollout; it is repeated until it did."""
    return place.control.pointer(_mark(rollout))[0] > 0


def _mark(rollout: Rollout) -> str:
    return f"settled/{rollout.id}"
