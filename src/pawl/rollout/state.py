"""A rollout's persisted state and its legal moves (pure)."""

from __future__ import annotations

from typing import Literal

import msgspec

from pawl.fleet.spec import RolloutSpec
from pawl.rollout.route import Arm, Route

Action = Literal["advance", "wait", "hold", "halve", "rollback"]
TERMINAL = ("done", "rolled_back")
AUTOMATION = ("roll_out", "watchdog")


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
    below: float | None = None  # the share of the champion's quality that the challenger is shown to be below


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
    by_hand: bool = False  # a person holds it: it goes on when a person says so
    opened_at: float
    stage_since: float
    spec: RolloutSpec
    keep_shadow: tuple[Arm, ...] = ()  # shadows of the route before; they go on
    override: Override | None = None
    history: tuple[Transition, ...] = ()
    revision: int = 0
    share: int | None = None  # of sessions, where it is less than the stage's own
    shares: tuple[tuple[int, int], ...] = ()  # (route revision from which on, percent), by the store
    # Of the route that it was read beside, then of the one that the store wrote with this state. None: not known.
    route_revision: int | None = None

    @property
    def waits_for_a_person(self) -> bool:
        """Whether a person holds it; of rollouts stored before `by_hand` their history tells."""
        if not self.held or self.by_hand:
            return self.held
        for t in reversed(self.history):
            if t.decision.action not in ("hold", "halve"):
                return False
            if t.by not in AUTOMATION:
                return True
        return False

    @property
    def resumed_at(self) -> float | None:
        """When a person last let it go on in its present stage; None where nobody did."""
        return next(
            (t.at for t in reversed(self.history) if t.decision.action == "wait" and t.stage_to == self.stage), None
        )

    @property
    def restores(self) -> bool:
        """Whether a person went back to an earlier state with it, without stages."""
        return self.override is not None and "stages" in self.override.skips


def order(spec: RolloutSpec) -> tuple[str, ...]:
    """All stages of a successful rollout, in order."""
    return ("shadow", *(str(s) for s in spec.stages), "watch", "done")


def move(rollout: Rollout, decision: Decision, *, by: str, now: float) -> Rollout:
    """The state after a decision. `wait` changes nothing; terminal states never change.

    Only `roll_out` or a person may advance; anybody may hold, halve or roll back (design rule 1).
    """
    if rollout.stage in TERMINAL or decision.action == "wait":
        return rollout
    if decision.action == "hold":
        # A person's hold is recorded on top of an automatic one, which would end by itself.
        known = rollout.held and by in AUTOMATION
        return rollout if known else _step(rollout, rollout.stage, decision, by, now, held=True)
    if decision.action == "halve":
        return _halved(rollout, decision, by, now)
    if decision.action == "rollback":
        return _step(rollout, "rolled_back", decision, by, now, held=False)
    if by == "watchdog":
        raise ValueError("the watchdog may hold, halve and roll back, never advance")
    stages = order(rollout.spec)
    following = stages[stages.index(rollout.stage) + 1]
    return _step(rollout, following, decision, by, now, held=False)


def _halved(r: Rollout, decision: Decision, by: str, now: float) -> Rollout:
    """Half of the share and held, once a stage; in shadow, where there is no share to halve, held."""
    if r.share is not None or r.stage == "shadow":
        return r if r.held else _step(r, r.stage, decision, by, now, held=True)
    halved = _step(r, r.stage, decision, by, now, held=True)
    return msgspec.structs.replace(halved, share=max(1, percent_of(r) // 2))


def reduced(rollout: Rollout, percent: int, *, by: str, reason: str, now: float) -> Rollout:
    """A person's partial rollback: a smaller share of this stage, held until a person resumes it.

    Raises:
        ValueError: the share is none of 1 .. the present one less 1, or nobody's in this stage.
    """
    present = percent_of(rollout)
    if not 1 <= percent < present:
        raise ValueError(f"the challenger answers {present} % of sessions; {percent} % is no smaller share of them")
    held = _step(rollout, rollout.stage, Decision(action="hold", reason=reason), by, now, held=True)
    return msgspec.structs.replace(held, share=percent)


def percent_of(rollout: Rollout) -> int:
    """The share of sessions that the challenger answers in this state, in percent."""
    if rollout.stage in ("shadow", *TERMINAL):
        return 0
    full = 100 if rollout.stage == "watch" else int(rollout.stage)
    return full if rollout.share is None else min(full, rollout.share)


def _step(r: Rollout, stage: str, d: Decision, by: str, now: float, *, held: bool) -> Rollout:
    same = stage == r.stage
    step = Transition(now, r.stage, stage, by, d)
    return msgspec.structs.replace(
        r,
        stage=stage,
        held=held,
        by_hand=held and (r.by_hand or by not in AUTOMATION),
        stage_since=r.stage_since if same else now,
        share=r.share if same else None,
        history=(*r.history, step),
    )


def resumed(rollout: Rollout, *, by: str, reason: str, now: float) -> Rollout:
    """A held rollout goes on by its evidence, with its stage's whole share again."""
    told = _step(rollout, rollout.stage, Decision(action="wait", reason=reason), by, now, held=False)
    return msgspec.structs.replace(told, share=None)


def route_of(rollout: Rollout) -> Route:
    """The route that a rollout's state demands (revision is set by the store)."""
    keep = rollout.keep_shadow
    if rollout.stage == "rolled_back":
        return Route(agent=rollout.agent, champion=rollout.champion, shadows=keep)
    if rollout.stage == "done":
        return Route(agent=rollout.agent, champion=rollout.challenger, shadows=keep)
    shadows = (rollout.challenger, *keep) if rollout.stage == "shadow" else keep
    return Route(
        agent=rollout.agent,
        champion=rollout.champion,
        challenger=rollout.challenger,
        percent=percent_of(rollout),
        cautious=rollout.share is not None,
        shadows=shadows,
        rollout=rollout.id,
        stage=rollout.stage,
    )
