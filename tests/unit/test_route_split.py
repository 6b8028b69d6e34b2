"""The split: sticky, monotone, and as large as it says."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pawl.rollout.route import BUCKETS, Arm, Route, bucket, choose

OLD = Arm("base", "local", "base", "local")
NEW = Arm("new", "local", "new", "local")
percents = st.integers(0, 100)


def route(percent: int, rollout: str = "r1") -> Route:
    return Route(agent="agent", champion=OLD, challenger=NEW, percent=percent, rollout=rollout)


@given(st.text(), percents, st.integers(0, 10**6))
def test_a_session_stays_where_it_is(session: str, percent: int, revision: int) -> None:
    again = Route(
        agent="agent", champion=OLD, challenger=NEW, percent=percent, rollout="r1", revision=revision, stage="other"
    )
    assert choose(route(percent), session) == choose(again, session)


@given(st.text(), percents, percents)
def test_raising_only_moves_to_the_challenger(session: str, a: int, b: int) -> None:
    low, high = sorted((a, b))
    if choose(route(low), session) == NEW:
        assert choose(route(high), session) == NEW


@given(st.text())
def test_the_ends_are_absolute(session: str) -> None:
    assert choose(route(0), session) == OLD
    assert choose(route(100), session) == NEW
    assert choose(Route(agent="agent", champion=OLD, percent=100), session) == OLD


@given(st.text(), st.text(), st.text() | st.none())
def test_buckets_are_in_range(agent: str, session: str, rollout: str | None) -> None:
    assert 0 <= bucket(agent, rollout, session) < BUCKETS


def test_shares_are_as_asked() -> None:
    n = 20_000
    for percent in (1, 20, 50, 80):
        share = sum(choose(route(percent), f"session-{i}") == NEW for i in range(n)) / n
        assert abs(share - percent / 100) < 4 * (percent / 100 * (1 - percent / 100) / n) ** 0.5


def test_another_rollout_tries_on_other_sessions() -> None:
    first = {i for i in range(2000) if choose(route(20, "r1"), str(i)) == NEW}
    second = {i for i in range(2000) if choose(route(20, "r2"), str(i)) == NEW}
    assert len(first & second) / len(first) < 0.3  # independent: about 0.2


def test_the_hash_never_changes() -> None:
    # Sessions that are under way keep their arm over an upgrade: these values are part of the format.
    assert bucket("agent", "r1", "a") == 5130
    assert bucket("agent", None, "b") == 3891
