"""Legal moves of a rollout and the route each state demands."""

from __future__ import annotations

from itertools import pairwise

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pawl.fleet.spec import RolloutSpec
from pawl.rollout.route import Arm
from pawl.rollout.state import TERMINAL, Decision, Rollout, move, order, route_of

OLD = Arm("base", "local", "base", "local")
NEW = Arm("new", "local", "new", "local")
CLOUD = Arm("cloud", "cloud", "cloud", "cloud")
SPEC = RolloutSpec()
START = Rollout(
    id="r",
    agent="agent",
    version="1",
    champion=OLD,
    challenger=NEW,
    stage="shadow",
    opened_at=1.0,
    stage_since=1.0,
    spec=SPEC,
    keep_shadow=(CLOUD,),
)
actions = st.sampled_from(["advance", "wait", "hold", "rollback"])


def act(action: str) -> Decision:
    return Decision(action=action, reason="test")  # type: ignore[arg-type]


def test_the_way_of_success() -> None:
    seen, r = [START.stage], START
    while r.stage not in TERMINAL:
        r = move(r, act("advance"), by="roll_out", now=2.0)
        seen.append(r.stage)
    assert seen == ["shadow", "20", "50", "80", "100", "watch", "done"] == list(order(SPEC))
    assert [(t.stage_from, t.stage_to) for t in r.history] == list(pairwise(seen))


def test_routes_by_stage() -> None:
    percents = {"shadow": 0, "20": 20, "50": 50, "80": 80, "100": 100, "watch": 100}
    for stage, percent in percents.items():
        route = route_of(msgspec.structs.replace(START, stage=stage))
        assert (route.champion, route.challenger, route.percent, route.stage) == (OLD, NEW, percent, stage)
        assert route.shadows == ((NEW, CLOUD) if stage == "shadow" else (CLOUD,))
        assert route.rollout == "r"
    back, done = (route_of(msgspec.structs.replace(START, stage=s)) for s in ("rolled_back", "done"))
    assert (back.champion, done.champion) == (OLD, NEW)
    for route in (back, done):
        assert (route.challenger, route.percent, route.rollout, route.shadows) == (None, 0, None, (CLOUD,))


@given(st.lists(actions, max_size=12))
def test_the_watchdog_never_gives_a_challenger_more(chosen: list[str]) -> None:
    r = msgspec.structs.replace(START, stage="50")
    for n, action in enumerate(chosen):
        before = route_of(r).percent
        if action == "advance" and r.stage not in TERMINAL:
            with pytest.raises(ValueError, match="watchdog"):
                move(r, act(action), by="watchdog", now=float(n))
            continue
        r = move(r, act(action), by="watchdog", now=float(n))
        assert route_of(r).percent <= before


@given(st.lists(actions, max_size=15))
def test_laws_of_moving(chosen: list[str]) -> None:
    r, now = START, 1.0
    for action in chosen:
        now += 1
        after = move(r, act(action), by="roll_out", now=now)
        if r.stage in TERMINAL or action == "wait":
            assert after is r
        elif action == "rollback":
            assert after.stage == "rolled_back" and after.stage_since == now
        elif action == "hold":
            assert after.held and after.stage == r.stage and after.stage_since == r.stage_since
            assert move(after, act("hold"), by="roll_out", now=now) is after
        else:
            assert order(SPEC).index(after.stage) == order(SPEC).index(r.stage) + 1 and not after.held
        assert after.history[: len(r.history)] == r.history
        assert (after.champion, after.challenger, after.spec, after.id) == (OLD, NEW, SPEC, "r")
        r = after
