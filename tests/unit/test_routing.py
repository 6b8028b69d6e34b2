"""Complexity, the order of arms, and what rules an arm out."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pawl.fleet.limits import Privacy
from pawl.fleet.routing import CascadeSpec, RoutingSpec, Strategy
from pawl.fleet.upstream import UpstreamSpec
from pawl.gateway.routing.complexity import Features, complexity, features
from pawl.gateway.routing.fallback_share import ENOUGH, FallbackShare
from pawl.gateway.routing.load import LoadBook, QueueFull, Turnstile
from pawl.gateway.routing.policy import Candidate, order
from pawl.gateway.routing.router import Plan, Router
from pawl.rollout.route import Arm, Route

BASE = Arm("base", "local", "base", "local")
ADAPTER = Arm("fn-v2-abc", "local", "fn-v2-abc", "local")
BIG = Arm("big", "cloud", "big", "cloud")
SMALL = Arm("small", "cheap", "small", "cloud")
URL = "http://127.0.0.1:1/v1"
UPSTREAMS = {
    "local": UpstreamSpec(kind="local", base_url=URL, quality=0.4, usd_per_million_prompt=0.1,
                          usd_per_million_completion=0.2),
    "cloud": UpstreamSpec(kind="cloud", base_url=URL, model="big", quality=0.95, images=True, context_tokens=100_000,
                          usd_per_million_prompt=2.5, usd_per_million_completion=10.0),
    "cheap": UpstreamSpec(kind="cloud", base_url=URL, model="small", quality=0.6, tools=False, context_tokens=1000,
                          usd_per_million_prompt=0.05, usd_per_million_completion=0.1),
}  # fmt: skip
ARMS = {"local": BASE, "cloud": BIG, "cheap": SMALL}
REACH: dict[Privacy, frozenset[str]] = {
    "open": frozenset(UPSTREAMS), "local_only": frozenset({"local"}), "strict": frozenset({"local"})
}  # fmt: skip
LEVELS = ["simple", "moderate", "complex", "very_complex"]


class Desk:
    """A router with a clock that the test moves."""

    def __init__(self, **rules: Any) -> None:
        self.now = 0.0
        self.book = LoadBook(UPSTREAMS)
        self.router = Router(
            UPSTREAMS, {"a": RoutingSpec(**rules)}, self.book, REACH, lambda n: ARMS[n], lambda: self.now
        )

    def plan(
        self,
        looks: Features = Features(),  # noqa: B008 - frozen
        level: str = "simple",
        strategy: Strategy = "privacy_first",
        privacy: Privacy = "open",
        **route: Any,
    ) -> Plan:
        made = Route(agent="a", champion=route.pop("champion", BASE), **route)
        return self.router.plan(made, "s", looks, level, strategy, privacy)


def names(plan: Plan) -> list[str]:
    return [c.arm.name for c in plan.choices]


# -- complexity


@pytest.mark.parametrize(
    ("looks", "level"),
    [
        (Features(), "simple"),
        (Features(prompt_tokens=600), "simple"),
        (Features(prompt_tokens=2500), "moderate"),
        (Features(prompt_tokens=2500, braces=30, tools=1), "complex"),
        (Features(prompt_tokens=9000, braces=100, tools=8, schema_depth=5), "very_complex"),
    ],
)
def test_complexity_of_typical_requests(looks: Features, level: str) -> None:
    assert complexity(looks)[0] == level
    assert complexity(looks, 6)[0] == "very_complex"


COUNTS = st.integers(0, 20_000)


@given(
    st.builds(Features, prompt_tokens=COUNTS, turns=COUNTS, braces=COUNTS, schema_depth=COUNTS, tools=COUNTS,
              wanted_tokens=COUNTS, images=st.booleans()),
    st.sampled_from(["prompt_tokens", "turns", "braces", "schema_depth", "tools", "wanted_tokens"]),
    COUNTS,
)  # fmt: skip
def test_more_of_anything_never_makes_it_simpler(looks: Features, field: str, more: int) -> None:
    import msgspec

    larger = msgspec.structs.replace(looks, **{field: getattr(looks, field) + more})
    assert complexity(larger)[1] >= complexity(looks)[1]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda c: (
        st.lists(c, max_size=4) | st.dictionaries(st.sampled_from(["content", "type", "properties", "text", "x"]), c)
    ),
    max_leaves=20,
)


@given(
    st.lists(st.dictionaries(st.sampled_from(["role", "content"]), JSON), max_size=4),
    st.dictionaries(st.sampled_from(["tools", "response_format", "max_tokens", "logprobs", "prompt"]), JSON),
)
def test_features_of_any_body_are_found_without_an_error(messages: list[Any], more: dict[str, Any]) -> None:
    found = features({"messages": messages, **more})
    assert found.turns == len(messages) and found.prompt_tokens >= 0


def test_features_see_schema_depth_images_and_bounds() -> None:
    inner = {"type": "object", "properties": {"b": {"type": "object", "properties": {"c": {"type": "string"}}}}}
    schema = {"type": "object", "properties": {"a": inner}}
    found = features(
        {
            "messages": [{"role": "user", "content": [{"type": "text", "text": "x" * 400}, {"type": "image_url"}]}],
            "response_format": {"type": "json_schema", "json_schema": {"schema": schema}},
            "tools": [{}, {}],
            "max_completion_tokens": 700,
        }
    )
    assert (found.prompt_tokens, found.images, found.schema_depth, found.tools) == (100, True, 3, 2)
    assert (found.wanted_tokens, found.json_schema) == (700, True)


# -- the order


CANDIDATES = st.lists(
    st.builds(
        Candidate,
        arm=st.sampled_from([BASE, ADAPTER, BIG, SMALL]),
        why=st.just("w"),
        cost_usd=st.floats(0, 1),
        latency_s=st.floats(0, 30),
        quality=st.floats(0, 1),
        barred=st.none() | st.just("rests"),
        weak=st.none() | st.just("scored low"),
    ),
    max_size=4,
)
STRATEGIES = st.sampled_from(["privacy_first", "cost_optimized", "quality_optimized", "latency_optimized", "balanced"])


@given(STRATEGIES, CANDIDATES, CANDIDATES)
def test_no_barred_arm_is_tried_none_twice_and_weak_ones_last(
    strategy: Strategy, good: list[Candidate], behind: list[Candidate]
) -> None:
    found = [c.arm.name for c in order(strategy, good, behind)]
    assert len(found) == len(set(found))
    open_ones = {c.arm.name for c in [*good, *behind] if not c.barred}
    assert set(found) == open_ones
    by_name: dict[str, list[Candidate]] = {}
    for c in [*good, *behind]:
        by_name.setdefault(c.arm.name, []).append(c)
    always_weak = [n for n in found if all(c.weak for c in by_name[n] if not c.barred)]
    never_weak = [n for n in found if not any(c.weak for c in by_name[n] if not c.barred)]
    assert all(found.index(w) > found.index(s) for w in always_weak for s in never_weak)


@pytest.mark.parametrize(
    ("strategy", "first"),
    [("privacy_first", "base"), ("cost_optimized", "small"), ("quality_optimized", "big"), ("balanced", "small")],
)
def test_strategies_prefer_what_their_name_says(strategy: Strategy, first: str) -> None:
    desk = Desk(tiers={"simple": ("cloud", "local", "cheap")})
    assert names(desk.plan(strategy=strategy))[0] == first
    assert set(names(desk.plan(strategy=strategy))) == {"base", "small", "big"}


def test_latency_counts_the_queue() -> None:
    desk = Desk(tiers={"simple": ("local", "cloud")})
    desk.book.arm(BASE).took(1.0)
    desk.book.arm(BIG).took(1.5)
    assert names(desk.plan(strategy="latency_optimized"))[0] == "base"
    desk.book.turnstiles["local"].inside = 64
    assert names(desk.plan(strategy="latency_optimized"))[0] == "big"


def test_tiers_send_what_is_hard_to_the_strong_and_the_route_stands_for_the_cluster() -> None:
    desk = Desk(tiers={"complex": ("cloud",), "very_complex": ("cloud", "local")}, fallback=("local",))
    assert names(desk.plan(level="simple")) == ["base"]
    assert names(desk.plan(level="complex")) == ["big", "base"]
    assert names(desk.plan(level="very_complex", strategy="quality_optimized")) == ["big", "base"]
    plan = desk.plan(level="very_complex", challenger=ADAPTER, percent=100)
    assert names(plan)[:2] == ["fn-v2-abc", "big"]
    assert plan.choices[0].reason == "challenger at 100 %"


@pytest.mark.parametrize(
    ("route", "found"),
    [
        ({}, ["base"]),
        ({"shadows": (BIG,)}, ["base", "big"]),
        ({"champion": BIG, "shadows": (BASE,)}, ["big"]),
        ({"challenger": ADAPTER, "percent": 100}, ["fn-v2-abc", "base"]),
        ({"challenger": ADAPTER, "percent": 100, "shadows": (BIG,)}, ["fn-v2-abc", "base", "big"]),
        ({"champion": BIG, "challenger": ADAPTER, "percent": 100}, ["fn-v2-abc", "big"]),
        ({"challenger": ADAPTER, "percent": 0, "shadows": (ADAPTER, BIG)}, ["base", "big"]),
    ],
)
def test_who_stands_behind_whom(route: dict[str, Any], found: list[str]) -> None:
    plan = Desk().plan(**route)
    assert names(plan) == found
    assert [c.fallback for c in plan.choices] == [False] + [True] * (len(found) - 1)
    assert [c.reason.startswith("fallback") for c in plan.choices] == [c.fallback for c in plan.choices]


# -- what rules an arm out


def test_no_plan_leaves_the_privacy_mode() -> None:
    desk = Desk(tiers={"complex": ("cloud", "cheap")}, fallback=("cloud",))
    for mode in ("local_only", "strict"):
        for level in LEVELS:
            plan = desk.plan(level=level, privacy=mode, shadows=(BIG,))  # type: ignore[arg-type]
            assert all(c.arm.upstream == "local" for c in plan.choices)
            assert {b.kind for b in plan.barred} == {"privacy"}


@pytest.mark.parametrize(
    ("looks", "found"),
    [
        (Features(images=True), ["big"]),
        (Features(tools=1), ["base", "big"]),
        (Features(prompt_tokens=2001), ["base", "big"]),
        (Features(prompt_tokens=1999), ["base", "big", "small"]),
    ],
)
def test_what_an_upstream_cannot_do_goes_to_one_that_can(looks: Features, found: list[str]) -> None:
    plan = Desk(fallback=("cloud", "cheap")).plan(looks)
    assert names(plan) == found
    assert {b.arm.name for b in plan.barred} == {"base", "big", "small"} - set(found)
    assert all(b.kind == "capability" for b in plan.barred)


def test_a_resting_arm_is_passed_over_with_the_reason_and_comes_back() -> None:
    desk = Desk(fallback=("cloud",))
    for _ in range(3):
        desk.book.arm(BASE).breaker.failed(0)
    plan = desk.plan()
    assert names(plan) == ["big"] and plan.choices[0].fallback
    assert plan.choices[0].reason == "fallback: base rests after 3 failures in a row"
    assert plan.barred[0].retry_after_s == 10
    desk.now = 10.0
    assert names(desk.plan()) == ["base", "big"]


def test_a_full_queue_sends_requests_elsewhere() -> None:
    desk = Desk(fallback=("cloud",))
    desk.book.turnstiles["local"] = gate = Turnstile(1, 0)
    gate.inside = 1
    assert names(desk.plan()) == ["big"] and "full queue" in desk.plan().choices[0].reason


def test_scores_under_the_floor_move_traffic_until_they_are_old() -> None:
    desk = Desk(fallback=("cloud",), quality_floor=0.5)
    for n in range(9):
        desk.book.arm(BASE).scored(0.1, float(n))
    assert names(desk.plan())[0] == "base", "nine scores mean nothing yet"
    desk.book.arm(BASE).scored(0.1, 9.0)
    plan = desk.plan()
    assert names(plan) == ["big", "base"], "it stays as the last resort"
    assert plan.choices[0].reason.startswith("fallback: base scored 0.10 lately, under the floor of 0.5")
    desk.now = 1000.0
    assert names(desk.plan())[0] == "base"


def test_a_cascade_has_its_strong_model_in_the_plan() -> None:
    desk = Desk(cascade=CascadeSpec(check="schema", upstream="cheap"))
    assert names(desk.plan(shadows=(BIG,))) == ["base", "small", "big"]


# -- queues and alerts


async def test_a_turnstile_lets_in_so_many_and_keeps_the_order() -> None:
    gate, order_in = Turnstile(2, 3), list[int]()

    async def call(n: int) -> None:
        await gate.enter()
        order_in.append(n)
        await asyncio.sleep(0.01)
        gate.leave()

    tasks = [asyncio.create_task(call(n)) for n in range(5)]
    await asyncio.sleep(0)
    assert (gate.inside, gate.waiting, gate.full) == (2, 3, True)
    with pytest.raises(QueueFull):
        await gate.enter()
    tasks[2].cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert order_in == [0, 1, 3, 4] and (gate.inside, gate.waiting) == (0, 0)


@given(st.lists(st.sampled_from(["enter", "leave", "cancel"]), max_size=60))
def test_turns_are_never_lost(steps: list[str]) -> None:
    async def play() -> None:
        gate = Turnstile(2, 4)
        inside, waiting = 0, list[asyncio.Task[None]]()
        for step in steps:
            if step == "enter":
                try:
                    task = asyncio.create_task(gate.enter())
                    await asyncio.sleep(0)
                    if task.done():
                        task.result()
                        inside += 1
                    else:
                        waiting.append(task)
                except QueueFull:
                    pass
            elif step == "leave" and inside:
                gate.leave()
                inside -= 1
            elif step == "cancel" and waiting:
                waiting[0].cancel()
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            inside += sum(1 for t in waiting if t.done() and not t.cancelled())
            waiting = [t for t in waiting if not t.done()]
            assert gate.inside == inside <= 2 and gate.waiting == len(waiting)
            assert not waiting or inside == 2, "nobody waits while there is room"

    asyncio.run(play())


def test_fallbacks_alert_once_a_bound_until_they_fall_under_it() -> None:
    share = FallbackShare((0.01, 0.05))
    assert [share.note(True) for _ in range(5)] == [[]] * 5, "a share of five answers means nothing"
    assert [share.note(False) for _ in range(ENOUGH - 6)] == [[]] * (ENOUGH - 6)
    assert share.note(True) == [0.01, 0.05] and share.note(True) == []
    for _ in range(1000):
        assert share.note(False) == []
    assert share.share == 0 and [share.note(True) for _ in range(11)].count([0.01]) == 1
