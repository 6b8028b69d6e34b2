"""A rollout's persisted state and its legal moves (pure)."""

from __future__ import annotations

from typing import Literal

import msgspec

from pawl.fleet.spec import RolloutSpec
from pawl.rollout.route import Arm, Route

Action = Literal["advance", "wait", "hold", "rollback"]
TERMINAL = ("done", "rolled_back")


class Override(msgspec.Struct, frozen=True):
    """An operator's recorded order to go past a gate or past shadow."""

    by: str
    reason: str
    at: float
    skips: tuple[str, ...]  # e.g. ("gate", "shadow")


class Decision(msgspec.Struct, frozen=True, kw_only=True):
    """What the evidence says should happen next, and why."""

    action: Action
    reason: str
    e_value: float = 1.0  # against "the challenger is not worse"; 1/alpha rolls back
    sessions: int = 0  # scored challenger sessions (pairs in shadow) in this stage
    needed: int = 0
    lower: float | None = None  # anytime-valid bounds of the mean difference challenger - champion
    upper: float | None = None


class Transition(msgspec.Struct, frozen=True):
    """One move, kept for the report."""

    at: float
    stage_from: str
    stage_to: str
    by: str  # roll_out, watchdog, or a person
    decision: Decision


class Rollout(msgspec.Struct, frozen=True, kw_only=True):
    """One agent's staged shift. Stages: shadow, "20", ..., "100", watch, done, rolled_back."""

    id: str
    agent: str
    version: str  # registry version of the challenger
    champion: Arm
    challenger: Arm
    stage: str
    held: bool = False
    opened_at: float
    stage_since: float
    spec: RolloutSpec
    keep_shadow: tuple[Arm, ...] = ()  # shadows of the route before; they go on
    override: Override | None = None
    history: tuple[Transition, ...] = ()
    revision: int = 0


def order(spec: RolloutSpec) -> tuple[str, ...]:
    """All stages of a successful rollout, in order."""
    return ("shadow", *(str(s) for s in spec.stages), "watch", "done")


def move(rollout: Rollout, decision: Decision, *, by: str, now: float) -> Rollout:
    """The state after a decision. `wait` changes nothing; terminal states never change.

    Only `roll_out` or a person may advance; anybody may hold or roll back (design rule 1).
    """
    if rollout.stage in TERMINAL or decision.action == "wait":
        return rollout
    if decision.action == "hold":
        # A person's hold is recorded on top of an automatic one, which would end by itself.
        known = rollout.held and by in ("watchdog", "roll_out")
        return rollout if known else _step(rollout, rollout.stage, decision, by, now, held=True)
    if decision.action == "rollback":
        return _step(rollout, "rolled_back", decision, by, now, held=False)
    if by == "watchdog":
        raise ValueError("the watchdog may hold and roll back, never advance")
    stages = order(rollout.spec)
    following = stages[stages.index(rollout.stage) + 1]
    return _step(rollout, following, decision, by, now, held=False)


def _step(r: Rollout, stage: str, d: Decision, by: str, now: float, *, held: bool) -> Rollout:
    since = r.stage_since if stage == r.stage else now
    step = Transition(now, r.stage, stage, by, d)
    return msgspec.structs.replace(r, stage=stage, held=held, stage_since=since, history=(*r.history, step))


def route_of(rollout: Rollout) -> Route:
    """The route that a rollout's state demands (revision is set by the store)."""
    keep = rollout.keep_shadow
    if rollout.stage == "rolled_back":
        return Route(agent=rollout.agent, champion=rollout.champion, shadows=keep)
    if rollout.stage == "done":
        return Route(agent=rollout.agent, champion=rollout.challenger, shadows=keep)
    percent = 0 if rollout.stage == "shadow" else 100 if rollout.stage == "watch" else int(rollout.stage)
    shadows = (rollout.challenger, *keep) if rollout.stage == "shadow" else keep
    return Route(
        agent=rollout.agent,
        champion=rollout.champion,
        challenger=rollout.challenger,
        percent=percent,
        shadows=shadows,
        rollout=rollout.id,
        stage=rollout.stage,
    )
