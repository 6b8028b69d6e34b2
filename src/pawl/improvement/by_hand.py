"""What people do with an agent's traffic by hand: pause, reduce, resume, advance, abort a rollout; go back.

Everything is recorded under the person's name. A way back needs neither Prefect nor the model registry to be up.
"""

from __future__ import annotations

import time
import uuid
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from pawl.bootstrap import current_route, upstream_arm
from pawl.errors import NotAllowed, ServerNotUp, StaleWrite
from pawl.rollout.control import AuditEntry, ControlStore, Key
from pawl.rollout.route import Arm
from pawl.rollout.state import TERMINAL, Decision, Override, Rollout, move, percent_of, reduced, resumed

if TYPE_CHECKING:
    from pawl.improvement.workplace import Workplace

CLOUD = "cloud"
_TRIES = 5  # of a write that a watchdog's or the flow's may overtake


def pause(control: ControlStore, agent: str, key: Key, reason: str) -> Rollout:
    """Stay at the present stage until a person resumes the rollout."""
    return _whatever_else_moves(control, agent, Decision(action="hold", reason=_said(reason)), key, "paused")


def reduce(control: ControlStore, agent: str, percent: int, key: Key, reason: str) -> Rollout:
    """Partial rollback: this smaller share of sessions (in percent), until a person resumes the rollout.

    NotAllowed where it is not a smaller share; StaleWrite where other writers were first again and again.
    """
    reason = _said(reason)
    for _ in range(_TRIES - 1):
        with suppress(StaleWrite):
            return _reduced(control, agent, percent, key, reason)
    return _reduced(control, agent, percent, key, reason)


def _reduced(control: ControlStore, agent: str, percent: int, key: Key, reason: str) -> Rollout:
    rollout, now = _open(control, agent), time.time()
    before = percent_of(rollout)
    try:
        made = reduced(rollout, percent, by=key.name, reason=f"{key.name}: {reason}", now=now)
    except ValueError as e:
        raise NotAllowed(f"{e}; `pawl rollout abort {agent}` takes all of it away") from e
    detail = {"rollout": rollout.id, "stage": rollout.stage, "from": before, "to": percent, "reason": reason}
    return control.save_rollout(made, AuditEntry("rollout reduced by hand", key.name, detail, now))


def abort(control: ControlStore, agent: str, key: Key, reason: str) -> Rollout:
    """Send everything back to the champion now."""
    return _whatever_else_moves(control, agent, Decision(action="rollback", reason=_said(reason)), key, "aborted")


def resume(control: ControlStore, agent: str, key: Key, reason: str = "") -> Rollout:
    """Let a held rollout go on by its evidence, with the whole share of its stage."""
    rollout, now = _open(control, agent), time.time()
    if not rollout.held:
        raise NotAllowed(f"{rollout.id} is not held; see `pawl rollout status {agent}`")
    told = f"{key.name}: {reason.strip() or 'resumed'}"
    entry = AuditEntry("rollout resumed", key.name, {"rollout": rollout.id, "reason": reason}, now)
    return control.save_rollout(resumed(rollout, by=key.name, reason=told, now=now), entry)


def step_on(place: Workplace, key: Key, reason: str) -> Rollout:
    """Advance by one stage before the evidence does; what it said then stands beside the person's reason.

    NotAllowed where it demands that the challenger gets less traffic.
    """
    from pawl.rollout.decide import decide
    from pawl.rollout.evidence import gather

    rollout, now = _open(place.control, place.agent_name), time.time()
    reason = _said(reason)
    seen = place.lake.interactions(place.agent_name, since=rollout.opened_at, until=None)
    said = place.lake.feedback(place.agent_name, since=rollout.opened_at, until=None)
    found = decide(rollout, gather(rollout, seen, said), now)
    if found.action in ("rollback", "halve"):
        raise NotAllowed(f"the evidence demands {found.action}: {found.reason}")
    told = f"{key.name}: {reason} (the evidence said {found.action}: {found.reason})"
    return _saved(
        place.control, rollout, msgspec.structs.replace(found, action="advance", reason=told), key, "advanced"
    )


def restore(place: Workplace, to: str, key: Key, reason: str, despite_rejection: bool = False) -> Rollout:
    """Serve an earlier state again, all of it at once: an open rollout is aborted first.

    `to`: the number of a version whose latest rollout was done, `base` for the base model, `cloud` for the fleet's
    cloud, or an upstream's name. It is recorded as a rollout that is done, so that the registry's aliases follow as
    after any other. Where the open rollout's own champion is meant, aborting that is all, and it is what is returned.
    One whose latest rollout was rolled back counts as rejected, also where it was aborted only to restore another.

    Raises:
        NotAllowed: nobody bears that name, it serves already, it never had a rollout, it is the open one's challenger,
            it was rejected or rolled back, or a private agent would be a cloud's.
        ServerNotUp: the serving cluster, or the registry where this machine has not the files, does not answer.
        StaleWrite: other writers were first again and again.
    """
    reason = _said(reason)
    version, arm = _target(place, str(int(to)) if to.isdecimal() else to, despite_rejection)
    if version and not despite_rejection:
        _not_rejected(place, arm)

    def restored() -> Rollout:
        if version:  # once more: its own rollout may have opened while its files were fetched
            _let_out(place.control, place.agent_name, version, despite_rejection)
        return _restored(place, version, arm, to, key, reason)

    for _ in range(_TRIES - 1):
        with suppress(StaleWrite):  # the flow opened the next rollout in between
            return restored()
    return restored()


def _restored(place: Workplace, version: str, arm: Arm, to: str, key: Key, reason: str) -> Rollout:
    now, aborted = time.time(), None
    if place.control.open_rollout(place.agent_name) is not None:
        aborted = abort(place.control, place.agent_name, key, f"to serve {to}: {reason}")
    route = current_route(place.fleet, place.control, place.agent)
    if route.champion == arm:
        if aborted is not None:
            return aborted
        raise NotAllowed(f"{arm.name} serves {place.agent_name} already")
    rollout = Rollout(
        id=f"restore-{uuid.uuid4().hex[:12]}",
        agent=place.agent_name,
        version=version,
        champion=route.champion,
        challenger=arm,
        stage="watch",
        opened_at=now,
        stage_since=now,
        spec=place.agent.rollout,
        # One that serves now is no shadow meanwhile, and is one again when it serves no more.
        keep_shadow=route.shadows,
        route_revision=route.revision,
        override=Override(key.name, reason, now, ("gate", "shadow", "stages")),
    )
    decision = Decision(action="advance", reason=f"{key.name} went back to {to}: {reason}")
    detail = {"agent": place.agent_name, "from": route.champion.name, "to": arm.name, "reason": reason}
    return place.control.save_rollout(
        move(rollout, decision, by=key.name, now=now), AuditEntry("restored", key.name, detail, now)
    )


def _target(place: Workplace, to: str, despite_rejection: bool) -> tuple[str, Arm]:
    """(version's number or "", arm); an adapter is on the serving cluster and verified there when this returns."""
    from pawl.improvement.placing import fetch, place_adapter

    fleet = place.fleet
    if to == "base":
        return "", upstream_arm(fleet, fleet.local_upstream)
    clouds = [name for name, upstream in fleet.upstreams.items() if upstream.kind == "cloud"]
    name = clouds[0] if to == CLOUD and to not in fleet.upstreams and clouds else to
    if name in fleet.upstreams:
        upstream = fleet.upstreams[name]
        if upstream.kind == "cloud" and (place.agent.privacy, fleet.gateway.privacy) != ("open", "open"):
            raise NotAllowed(f"{place.agent_name} is private: {name} is a cloud")
        return "", upstream_arm(fleet, name)
    if not to.isdecimal():
        known = ["a version's number", "base", *fleet.upstreams]
        raise NotAllowed(f"there is no {to!r} to go back to; write {', '.join(known)}")
    _let_out(place.control, place.agent_name, to, despite_rejection)
    here = _at_hand(place, to)
    if here is None:
        try:
            here = fetch(place, place.registry.version(place.agent_name, to))
        except ServerNotUp as e:
            raise ServerNotUp(f"version {to} is not on this machine, and {e}") from e
    place_adapter(place, here.name, here, f"version {to} of {place.agent_name}, restored by hand")
    return to, Arm(here.name, fleet.local_upstream, here.name, "local")


def _let_out(control: ControlStore, agent: str, version: str, despite_rejection: bool) -> None:
    """NotAllowed unless the version's latest rollout was done, or rolled back and somebody takes that on their name."""
    latest = next((r for r in control.rollouts(agent) if r.version == version), None)
    if latest is None:
        raise NotAllowed(
            f"version {version} of {agent} never had a rollout, so it is nothing to go back to: it takes over by an "
            "approval, or by `pawl rollout force`"
        )
    if latest.stage not in TERMINAL:
        raise NotAllowed(
            f"version {version} is the challenger of {agent}'s open rollout, in stage {latest.stage}, so it is nothing "
            f"to go back to: `pawl rollout advance {agent}` takes it a stage further; or `pawl rollout abort {agent}` "
            "first, then --despite-rejection serves it"
        )
    # A rejection is written when the rollout is settled, which wants the registry: this one counts from its end on.
    if latest.stage == "rolled_back" and not despite_rejection:
        why = latest.history[-1].decision.reason if latest.history else "no reason is recorded"
        raise NotAllowed(
            f"version {version} of {agent} was rejected (rolled back: {why}); --despite-rejection serves it all the "
            "same"
        )


def _at_hand(place: Workplace, number: str) -> Path | None:
    """The version's folder on this machine: named by agent, number and the hash of what it holds."""
    from pawl.registry.adapter_hash import adapter_sha256

    for folder in sorted(place.settings.adapters_dir.glob(f"{place.agent_name}-v{number}-*")):
        if folder.name == f"{place.agent_name}-v{number}-{adapter_sha256(folder)[:8]}":
            return folder
    return None


def _not_rejected(place: Workplace, arm: Arm) -> None:
    from pawl.registry.adapter_hash import adapter_sha256

    why = place.control.rejection(adapter_sha256(place.settings.adapters_dir / arm.name))
    if why is not None:
        raise NotAllowed(f"{arm.name} was rejected ({why}); --despite-rejection serves it all the same")


def _open(control: ControlStore, agent: str) -> Rollout:
    rollout = control.open_rollout(agent)
    if rollout is None:
        raise NotAllowed(f"{agent} has no open rollout; see `pawl rollout status {agent}`")
    return rollout


def _said(reason: str) -> str:
    if not reason.strip():
        raise NotAllowed("say why: --reason '...'; it is kept in the audit log")
    return reason.strip()


def _whatever_else_moves(control: ControlStore, agent: str, decision: Decision, key: Key, done: str) -> Rollout:
    """A move that is right in any state of the open rollout: where somebody else moved it first, from there."""
    decision = msgspec.structs.replace(decision, reason=f"{key.name}: {decision.reason}")
    for _ in range(_TRIES - 1):
        with suppress(StaleWrite):
            return _saved(control, _open(control, agent), decision, key, done)
    return _saved(control, _open(control, agent), decision, key, done)


def _saved(control: ControlStore, rollout: Rollout, decision: Decision, key: Key, done: str) -> Rollout:
    now = time.time()
    moved = move(rollout, decision, by=key.name, now=now)
    detail = {"rollout": moved.id, "from": rollout.stage, "to": moved.stage, "reason": decision.reason}
    return control.save_rollout(moved, AuditEntry(f"rollout {done} by hand", key.name, detail, now))
