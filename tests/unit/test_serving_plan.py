"""What must be on a replica, what is done for it, and that a simulated replica gets there whatever happens to it."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pawl.errors import ResourceError
from pawl.fleet.spec import RolloutSpec
from pawl.rollout.route import Arm, Route
from pawl.rollout.state import Rollout, order, route_of
from pawl.serving import plan as planning
from pawl.serving.desired import Lease, Need, Waiting, demand_room, fitting, needs
from pawl.serving.plan import Action, Known, Listed, Seen

BASE = Arm("base", "local", "base", "local")
CLOUD = Arm("big", "cloud", "big", "cloud")
HOME = "/h"


def adapter(name: str) -> Arm:
    return Arm(name, "local", name, "local")


def wanted(*args: Any, now: float = 0.0, **more: Any) -> dict[str, Need]:
    given_ = [*args, *[()] * (4 - len(args))]
    return needs(*given_, upstream="local", base="base", folder=Path("/h/adapters"), now=now, **more)


def rollout(stage: str) -> Rollout:
    return Rollout(
        id="r", agent="a", version="2", champion=adapter("a-v1"), challenger=adapter("a-v2"), stage=stage,
        opened_at=0.0, stage_since=0.0, spec=RolloutSpec(), keep_shadow=(CLOUD, adapter("a-s")),
    )  # fmt: skip


@pytest.mark.parametrize("stage", [*order(RolloutSpec()), "rolled_back"])
def test_champion_and_challenger_stay_until_the_watch_has_ended(stage: str) -> None:
    moved = rollout(stage)
    found = set(wanted([route_of(moved)], [moved]))
    if stage == "done":
        assert found == {"a-v2", "a-s"}
    elif stage == "rolled_back":
        assert found == {"a-v1", "a-s"}
    else:
        assert found == {"a-v1", "a-v2", "a-s"}


def test_only_adapters_of_the_cluster_are_needed_there() -> None:
    merged = Arm("a-v9", "merged", "a-v9", "local")
    assert wanted([Route(agent="a", champion=BASE, challenger=merged, shadows=(CLOUD,))]) == {}
    found = wanted([Route(agent="a", champion=adapter("a-v1")), Route(agent="b", champion=adapter("a-v1"))])
    assert found["a-v1"].path == "/h/adapters/a-v1"
    assert found["a-v1"].why == ("champion of a", "champion of b")


def test_a_lease_ends_and_what_waits_is_not_firm() -> None:
    lease = Lease("candidate-1", "/h/candidates/c/adapter", "evaluation of a", until=10.0)
    assert wanted((), (), [lease], now=9.0)["candidate-1"].firm
    assert wanted((), (), [lease], now=10.0) == {}
    found = wanted([Route(agent="a", champion=adapter("a-v1"))], (), (), [Waiting("a-v1", "a"), Waiting("a-v2", "a")])
    assert found["a-v1"].firm and not found["a-v2"].firm


def test_what_does_not_fit_is_refused_in_words() -> None:
    three = wanted([Route(agent=a, champion=adapter(f"{a}-v1")) for a in "abc"])
    demand_room(three, "d-v1", 4)
    demand_room(three, "a-v1", 3)  # it is there already
    with pytest.raises(ResourceError, match=r"keeps 3 adapters.*\n.*champion of a(.|\n)*max-cpu-loras"):
        demand_room(three, "d-v1", 3)


@given(firm=st.integers(0, 6), warm=st.integers(0, 6), slots=st.integers(1, 8))
def test_firm_needs_are_always_kept_and_warm_ones_only_where_there_is_room(firm: int, warm: int, slots: int) -> None:
    routes = [Route(agent=f"f{n}", champion=adapter(f"f{n}")) for n in range(firm)]
    found = fitting(wanted(routes, (), (), [Waiting(f"w{n}", "a") for n in range(warm)]), slots)
    assert {f"f{n}" for n in range(firm)} <= found.keys()
    assert len(found) == max(firm, min(firm + warm, slots))


class Engine:
    """Keeps adapters as vLLM does: the front end's names, and beneath them the engine's slots by latest use."""

    def __init__(self, slots: int) -> None:
        self.slots, self.names, self.stalls, self.serial = slots, {}, 0, 0
        self.held: OrderedDict[int, None] = OrderedDict()
        self.failing = 0

    def seen(self, busy: frozenset[str] = frozenset()) -> Seen:
        listed = {n: Listed(path, True) for n, (path, _) in self.names.items()}
        return Seen({"base": Listed("/base", False), **listed}, busy)

    def use(self, name: str) -> None:
        serial = self.names[name][1]
        if serial not in self.held:
            self.stalls += 1
        self._hold(serial)

    def load(self, name: str, path: str) -> None:
        self.serial += 1
        self._hold(self.serial)
        self.names[name] = (path, self.serial)

    def _hold(self, serial: int) -> None:
        if serial not in self.held and len(self.held) >= self.slots:
            self.held.popitem(last=False)
        self.held[serial] = None
        self.held.move_to_end(serial)


def look(engine: Engine, known: Known, want: dict[str, Need], now: float, busy: frozenset[str] = frozenset()) -> Known:
    """One look as the reconciler does it; every step that must not happen is an error here."""
    seen = engine.seen(busy)
    known = planning.observed(known, seen, want, now)
    broken = set()
    for step in planning.plan(known, seen, want, now, slots=engine.slots, home=HOME, drain_s=5.0):
        if step.name in broken:
            continue
        if step.kind in ("load", "verify", "touch") and engine.failing > 0:
            engine.failing -= 1
            broken.add(step.name)
            known = planning.failed(known, step, "told to", "server", now)
            continue
        if step.kind == "load":
            assert step.name in want and step.name not in engine.names
            engine.load(step.name, step.path)
        elif step.kind in ("verify", "touch"):
            assert step.name in engine.names
            engine.use(step.name)
        elif step.kind == "unload":
            assert step.name not in want and step.name not in busy, "never what is named, never what is used"
            del engine.names[step.name]
        known = planning.done(known, step, now)
    assert planning.ready(known, engine.seen()) <= engine.names.keys() | {"base"}
    return known


NAMES = [f"a{n}" for n in range(6)]
worlds = st.lists(
    st.tuples(
        st.sets(st.sampled_from(NAMES), max_size=3),  # what is needed from now on
        st.sets(st.sampled_from(NAMES)),  # what is in use
        st.integers(0, 3),  # steps that fail
        st.booleans(),  # the replica restarts
        st.floats(0.1, 20),  # seconds until the next look
    ),
    min_size=1,
    max_size=12,
)


@settings(max_examples=300, deadline=None)
@given(story=worlds)
def test_a_replica_gets_what_it_needs_and_loses_nothing_that_is_named(story: list[Any]) -> None:
    engine, known, now = Engine(4), Known(), 0.0
    want: dict[str, Need] = {}
    for names, busy, fails, restarts, pause in story:
        if restarts:
            engine, known = Engine(4), Known()
        want = {n: Need(n, f"{HOME}/{n}", ("test",)) for n in sorted(names)}
        engine.failing = fails
        now += pause
        known = look(engine, known, want, now, frozenset(busy) & engine.names.keys())
    engine.failing = 0
    for _ in range(4):
        now += 61.0  # beyond the longest pause and the drain
        known = look(engine, known, want, now)
    assert engine.names.keys() == want.keys()
    assert planning.ready(known, engine.seen()) == want.keys() | {"base"}
    stalls = engine.stalls
    for name in want:
        engine.use(name)
    assert engine.stalls == stalls, "what is needed lies in the engine's slots"


@settings(max_examples=200, deadline=None)
@given(order_=st.lists(st.sampled_from(NAMES), min_size=1, max_size=20))
def test_adapters_that_come_and_go_push_no_champion_out_of_its_slot(order_: list[str]) -> None:
    """The champion is idle all the while, so it would be the least recently used."""
    engine, known, now = Engine(3), Known(), 0.0
    champion = Need("champion", f"{HOME}/champion", ("champion",))
    for name in order_:
        now += 10.0
        known = look(engine, known, {"champion": champion, name: Need(name, f"{HOME}/{name}", ("next",))}, now)
        assert engine.names["champion"][1] in engine.held


def test_failures_wait_twice_as_long_each_time_up_to_a_minute() -> None:
    want = {"a": Need("a", f"{HOME}/a", ("x",))}
    known, now, pauses = Known(), 0.0, []
    for _ in range(9):
        steps = planning.plan(known, Seen({}), want, now, slots=4, home=HOME, drain_s=5)
        assert [s.kind for s in steps] == ["load", "verify"]
        known = planning.failed(known, steps[0], "no", "server", now)
        pauses.append(known.failures["a"].again_at - now)
        assert planning.plan(known, Seen({}), want, now + pauses[-1] - 0.01, slots=4, home=HOME, drain_s=5) == []
        now += pauses[-1]
    assert pauses == [1, 2, 4, 8, 16, 32, 60, 60, 60]
    assert planning.done(known, Action("verify", "a"), now).failures == {}


def test_a_name_that_stands_for_another_folder_is_never_ready() -> None:
    want = {"a": Need("a", f"{HOME}/a", ("x",))}
    seen = Seen({"a": Listed("/elsewhere/a", True)})
    known = planning.observed(msgspec.structs.replace(Known(), verified=frozenset({"a"})), seen, want, 0.0)
    assert planning.ready(known, seen) == frozenset()
    assert "never reused" in known.failures["a"].why and known.failures["a"].fault == "file"


def test_what_is_drained_gets_no_request_and_comes_back_when_it_is_named_again() -> None:
    seen = Seen({"a": Listed(f"{HOME}/a", True), "theirs": Listed("/elsewhere", True)})
    known = Known(verified=frozenset({"a"}), listed=frozenset({"a"}))
    steps = planning.plan(known, seen, {}, 0.0, slots=4, home=HOME, drain_s=5.0)
    assert steps == [Action("drain", "a")], "what others loaded stays"
    known = planning.done(known, steps[0], 0.0)
    assert planning.ready(known, seen) == frozenset()
    busy = planning.observed(known, Seen(seen.listed, frozenset({"a"})), {}, 6.0)
    assert planning.plan(busy, seen, {}, 7.0, slots=4, home=HOME, drain_s=5.0) == [], "it was in use a second ago"
    want = {"a": Need("a", f"{HOME}/a", ("x",))}
    back = planning.observed(busy, seen, want, 8.0)
    assert planning.ready(back, seen) == frozenset(), "its slot may have gone to another meanwhile"
    steps = planning.plan(back, seen, want, 8.0, slots=4, home=HOME, drain_s=5.0)
    assert [s.kind for s in steps] == ["verify"]
    assert planning.ready(planning.done(back, steps[0], 8.0), seen) == {"a"}
