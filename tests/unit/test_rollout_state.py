"""Legal moves of a rollout and the route each state demands."""

from __future__ import annotations

from itertools import pairwise

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pawl.fleet.spec import RolloutSpec
from pawl.rollout.route import Arm
from pawl.rollout.state import TERMINAL, Decision, Rollout, move, order, resumed, route_of

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
actions = st.sampled_from(["advance", "wait", "hold", "halve", "rollback"])


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
        elif action == "halve":
            assert after.held and after.stage == r.stage and route_of(after).percent <= route_of(r).percent
            assert move(after, act("halve"), by="roll_out", now=now) is after
        elif action == "hold":
            assert after.held and after.stage == r.stage and after.stage_since == r.stage_since
            assert move(after, act("hold"), by="roll_out", now=now) is after
        else:
            assert order(SPEC).index(after.stage) == order(SPEC).index(r.stage) + 1 and not after.held
        assert after.history[: len(r.history)] == r.history
        assert (after.champion, after.challenger, after.spec, after.id) == (OLD, NEW, SPEC, "r")
        r = after


def test_a_share_is_halved_once_a_stage_and_whole_again_in_the_next() -> None:
    r = msgspec.structs.replace(START, stage="50")
    halved = move(r, act("halve"), by="watchdog", now=3.0)
    assert (halved.share, halved.held, halved.stage_since, route_of(halved).percent) == (25, True, 1.0, 25)
    assert route_of(halved).cautious and not route_of(r).cautious
    assert move(halved, act("halve"), by="watchdog", now=4.0) is halved
    further = move(halved, act("advance"), by="roll_out", now=5.0)
    assert (further.stage, further.share, route_of(further).percent) == ("80", None, 80)
    assert route_of(further).cautious is False
    small = msgspec.structs.replace(START, spec=RolloutSpec(stages=(1, 100)), stage="1")
    assert route_of(move(small, act("halve"), by="watchdog", now=3.0)).percent == 1
    assert route_of(move(msgspec.structs.replace(START, stage="watch"), act("halve"), by="x", now=3.0)).percent == 50


def test_in_shadow_there_is_nothing_to_halve() -> None:
    held = move(START, act("halve"), by="watchdog", now=3.0)
    assert (held.share, held.held, held.stage, route_of(held).percent) == (None, True, "shadow", 0)


def test_a_persons_hold_outlives_what_automation_does_and_ends_by_a_person() -> None:
    r = move(msgspec.structs.replace(START, stage="50"), act("hold"), by="ann", now=2.0)
    assert r.by_hand
    halved = move(r, act("halve"), by="watchdog", now=3.0)
    assert halved.by_hand and halved.share == 25
    assert not move(msgspec.structs.replace(START, stage="50"), act("hold"), by="watchdog", now=2.0).by_hand
    on = resumed(halved, by="ann", reason="looked at it", now=4.0)
    assert (on.held, on.by_hand, on.share, on.stage, on.stage_since) == (False, False, None, "50", 1.0)
    assert (on.history[-1].by, on.history[-1].decision.reason) == ("ann", "looked at it")
