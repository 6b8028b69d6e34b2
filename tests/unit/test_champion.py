"""What serves is held to its limits: when it alarms, when not, and that it forgets another champion."""

from __future__ import annotations

import random

import pytest
from scipy.stats import binom

from pawl.fleet.rollout import RolloutSpec
from pawl.lake.records import Feedback, Interaction
from pawl.rollout.champion import LATEST, SURELY, Latest
from pawl.rollout.exact import rarely
from pawl.rollout.route import Arm, Route

OLD, NEW = (Arm(n, "local", n, "local") for n in ("old", "new"))
ROUTE = Route(agent="a", champion=OLD)
SPEC = RolloutSpec(max_error_rate=0.1, max_p95_latency_s=2.0, max_p95_first_token_s=1.0, min_quality=0.6)


def call(n: int, **more: object) -> Interaction:
    fields = {"id": f"i{n}", "at": float(n), "agent": "a", "session": "s", "key_id": "k", "arm": "old",
              "arm_kind": "local", "messages": [], "latency_s": 1.0}  # fmt: skip
    return Interaction(**{**fields, **more})  # type: ignore[arg-type]


def said(n: int, score: float) -> Feedback:
    return Feedback(id=f"f{n}", at=float(n), interaction=f"i{n}", agent="a", kind="outcome", score=score)


def filled(calls: int, **more: object) -> Latest:
    made = Latest()
    for n in range(calls):
        made.take(call(n, **more), ROUTE)
    return made


@pytest.mark.parametrize(
    ("more", "why"),
    [
        ({"status": 500}, "30 of its latest 30 calls failed, 10% may"),
        ({"latency_s": 3.0}, "is over 2 s of latency"),
        ({"first_token_s": 1.5}, "is over 1 s of time to the first token"),
    ],
)
def test_each_limit_alarms(more: dict[str, object], why: str) -> None:
    assert why in filled(30, **more).alarm(SPEC, "old")
    assert filled(19, **more).alarm(SPEC, "old") == "", "too few calls to say so"
    assert filled(30).alarm(SPEC, "old") == ""
    assert filled(30, **more, role="shadow").alarm(SPEC, "old") == ""


def test_requests_that_were_wrong_themselves_are_passed_over() -> None:
    assert filled(30, status=400, error="temperature must be a number", latency_s=3.0).alarm(SPEC, "old") == ""
    assert "calls failed" in filled(30, status=429, error="too busy").alarm(SPEC, "old")


def test_poor_scores_alarm_only_where_there_is_a_floor() -> None:
    made = filled(60)
    for n in range(60):
        made.take(said(n, 0.2), ROUTE)
    assert "the mean of its latest 60 scores is 0.200, the floor is 0.6" in made.alarm(SPEC, "old")
    assert made.alarm(SPEC.model_copy(update={"min_quality": None}), "old") == ""


def test_another_champion_begins_anew_and_old_calls_are_forgotten() -> None:
    made = filled(30, status=500)
    made.take(call(31, arm="new"), Route(agent="a", champion=NEW))
    assert made.alarm(SPEC, "old") == ""
    healed = filled(30, status=500)
    for n in range(30, 30 + LATEST):
        healed.take(call(n), ROUTE)
    assert healed.alarm(SPEC, "old") == ""


def test_one_that_keeps_its_limits_hardly_ever_alarms() -> None:
    """A champion exactly at its limit of failures, looked at once: 2,000 times."""
    rng, alarms = random.Random(1), 0
    for _ in range(2000):
        errors = sum(rng.random() < 0.1 for _ in range(100))
        alarms += rarely(errors, 100, 0.1) < SURELY
    assert alarms <= 8


@pytest.mark.parametrize(("hits", "n", "rate"), [(0, 5, 0.1), (3, 20, 0.1), (20, 20, 0.5), (70, 500, 0.1), (1, 9, 1.0)])
def test_the_binomial_agrees_with_scipy(hits: int, n: int, rate: float) -> None:
    assert rarely(hits, n, rate) == pytest.approx(binom.sf(hits - 1, n, rate), rel=1e-9)
    assert rarely(hits or 1, n, 0.0) == 0.0
