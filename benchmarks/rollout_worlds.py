"""Rollouts whose truth is known: clients arrive, the real split sends them, the real decision is asked after each."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import msgspec

from pawl.fleet.rollout import RolloutSpec
from pawl.lake.records import Feedback, Interaction
from pawl.rollout.decide import decide
from pawl.rollout.evidence import gather
from pawl.rollout.route import Arm, Route, choose
from pawl.rollout.state import TERMINAL, Rollout, move, percent_of, route_of

AGENT = "agent"
OLD = Arm("old", "local", "old", "local")
NEW = Arm("new", "local", "new", "local")
SPEC = RolloutSpec(min_bake_s=0)  # the fleet's minimums
STAYS = 10**6  # a minimum that no stage ever reaches: it stays where it is until it is stopped


@dataclass(frozen=True)
class World:
    """What is true. Scores are 0 or 1; `both`, `only_old`, `only_new`: who would answer a request well."""

    name: str
    both: float
    only_old: float
    only_new: float
    spec: RolloutSpec = SPEC
    stage: str = "shadow"  # where the rollout begins
    turns: int = 1  # requests of a session; all of them are as hard as its first
    look_every: int = 1  # requests between two looks
    most: int = 20_000  # requests after which nobody waits any longer
    failing: tuple[int, int] = (0, 0)  # the requests in which servers fail, from and up to
    old_fails: float = 0.0  # the share of each arm's calls that fail then
    new_fails: float = 0.0

    @property
    def old(self) -> float:
        """The champion's true mean."""
        return self.both + self.only_old


@dataclass
class Outcome:
    """What became of one rollout."""

    world: str
    stage: str = ""
    requests: int = 0
    pairs: int = 0
    answers: int = 0  # of the challenger to clients
    failed: int = 0  # of its calls
    reduced: bool = False  # its share was made smaller by automation, or it was rolled back
    held: bool = False


def play(world: World, seed: int) -> Outcome:
    """One rollout to its end, by the product's own functions."""
    rng, scores, found = random.Random(seed), traffic(world, seed), Outcome(world.name)
    rollout = Rollout(
        id=f"r{seed}", agent=AGENT, version="1", champion=OLD, challenger=NEW, stage=world.stage, opened_at=0.0,
        stage_since=0.0, spec=world.spec,
    )  # fmt: skip
    seen: list[Interaction] = []
    said: list[Feedback] = []
    session, drawn, left = "", (0.0, 0.0), 0
    while rollout.stage not in TERMINAL and found.requests < world.most:
        found.requests += 1
        now = float(found.requests)
        if left == 0:
            session, drawn, left = f"s{rng.random()}", next(scores), world.turns
        left -= 1
        under_way = world.failing[0] <= found.requests < world.failing[1]
        fails = (
            {OLD.name: rng.random() < world.old_fails, NEW.name: rng.random() < world.new_fails} if under_way else {}
        )
        _answer(rollout, session, drawn, now, fails, seen, said, found)
        if found.requests % world.look_every:
            continue
        decision = decide(rollout, gather(rollout, seen, said), now)
        moved = move(rollout, decision, by="roll_out", now=now)
        found.held = found.held or moved.held
        found.reduced = found.reduced or (percent_of(moved) < percent_of(rollout) and moved.stage != "done")
        found.reduced = found.reduced or moved.stage == "rolled_back"
        rollout = moved
    found.stage = rollout.stage
    return found


def traffic(world: World, seed: int) -> Iterator[tuple[float, float]]:
    """What each session that arrives is worth: (the old one's score, the new one's), for every rule the same."""
    rng = random.Random(f"{seed}/scores")
    while True:
        yield _draw(world, rng)


def _draw(world: World, rng: random.Random) -> tuple[float, float]:
    u = rng.random()
    if u < world.both:
        return 1.0, 1.0
    if u < world.both + world.only_old:
        return 1.0, 0.0
    return (0.0, 1.0) if u < world.both + world.only_old + world.only_new else (0.0, 0.0)


def _answer(
    rollout: Rollout, session: str, drawn: tuple[float, float], now: float, fails: Mapping[str, bool],
    seen: list[Interaction], said: list[Feedback], found: Outcome,
) -> None:  # fmt: skip
    """One request. Where the challenger's call fails, the champion stands in; what failed, nobody scores."""
    route: Route = route_of(rollout)
    arm = choose(route, session)

    def record(who: Arm, role: Literal["answer", "shadow"], of: str | None = None) -> str:
        name, failed = f"i{len(seen)}", fails.get(who.name, False)
        call = Interaction(
            id=name, at=now, agent=AGENT, session=session, key_id="k", arm=who.name, arm_kind="local", messages=[],
            role=role, shadow_of=of, rollout=rollout.id, stage=rollout.stage, latency_s=1.0,
            status=503 if failed else 200, error="503" if failed else None,
        )  # fmt: skip
        seen.append(call)
        if failed:
            found.failed += who is NEW
            return name
        score = drawn[who is NEW]
        said.append(Feedback(id=f"f{len(said)}", at=now, interaction=name, agent=AGENT, kind="outcome", score=score))
        return name

    answered = record(arm, "answer")
    found.answers += arm == NEW
    if arm == NEW and fails.get(NEW.name):
        record(OLD, "answer")
    if rollout.stage == "shadow":
        record(NEW, "shadow", answered)
        found.pairs += 1


def flips_back(sessions: int) -> int:
    """Over all stages of a good rollout: how often a session went from the challenger to the champion again."""
    spec, flips = RolloutSpec(), 0
    base = Rollout(
        id="sticky", agent=AGENT, version="1", champion=OLD, challenger=NEW, stage="shadow", opened_at=0.0,
        stage_since=0.0, spec=spec,
    )  # fmt: skip
    stages = [str(s) for s in spec.stages]
    routes = [route_of(msgspec.structs.replace(base, stage=s)) for s in ("shadow", *stages, "watch", "done")]
    for n in range(sessions):
        met = [choose(route, f"session-{n}").name for route in routes]
        flips += sum(a == NEW.name and b == OLD.name for a, b in pairwise(met))
    return flips
