"""Where a session's requests go, what a lost replica moves, and when one that fails is left out and returns."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pawl.gateway.routing.balance import CROWDED, Standing, choose

REPLICAS = ["http://a:1/v1", "http://b:1/v1", "http://c:1/v1"]
sessions = st.text(min_size=1, max_size=12)
loads = st.dictionaries(st.sampled_from(REPLICAS), st.integers(0, 40), min_size=1)


def idle(names: list[str]) -> dict[str, int]:
    return dict.fromkeys(names, 0)


@given(sessions, st.permutations(REPLICAS))
def test_a_session_stays_whatever_the_order_and_a_lost_replica_moves_only_its_own(
    session: str, names: list[str]
) -> None:
    favourite = choose(session, idle(names))
    assert favourite == choose(session, idle(REPLICAS))
    for lost in REPLICAS:
        rest = [n for n in REPLICAS if n != lost]
        if lost != favourite:
            assert choose(session, idle(rest)) == favourite


def test_sessions_are_spread_evenly() -> None:
    found = Counter(choose(f"session {n}", idle(REPLICAS)) for n in range(3000))
    assert all(900 < count < 1100 for count in found.values())


@given(sessions, loads)
def test_it_is_left_only_where_it_is_crowded_and_clearly_busier(session: str, load: dict[str, int]) -> None:
    favourite, chosen = choose(session, dict.fromkeys(load, 0)), choose(session, load)
    least = min(load.values())
    if load[favourite] > CROWDED and load[favourite] > 1.5 * least:
        assert load[chosen] == least
    else:
        assert chosen == favourite


def test_one_that_cannot_be_reached_is_out_until_a_later_look_finds_it() -> None:
    one = Standing()
    one.failed(10.0, "refused", reached=False)
    assert one.out and one.ejections == 1
    assert not one.admits(11.0, None) and not one.admits(11.0, 9.9), "the look began before it failed"
    assert one.admits(11.0, 10.5) and not one.out and one.why == ""


def test_one_that_answers_badly_is_out_after_a_row_and_rests() -> None:
    one = Standing()
    for _ in range(2):
        one.failed(1.0, "500", reached=True)
    one.answered()
    for _ in range(2):
        one.failed(2.0, "500", reached=True)
    assert one.admits(2.0, 2.0)
    one.failed(3.0, "500", reached=True)
    assert not one.admits(7.9, 7.0), "looks find it sound, but it failed what it was sent"
    assert one.admits(8.1, 7.0) and one.ejections == 1


def test_where_nobody_looks_one_request_at_a_time_finds_out() -> None:
    one = Standing()
    one.failed(0.0, "refused", reached=False)
    assert not one.admits(4.9, None) and one.admits(5.0, None)
    one.begins(5.0)
    assert not one.admits(5.1, None), "the probe is under way"
    one.ends()
    one.failed(5.2, "refused", reached=False)
    assert not one.admits(10.1, None) and one.admits(10.3, None) and one.ejections == 1
    one.begins(10.3)
    one.answered()
    assert not one.out


@pytest.mark.parametrize("count", [1, 3])
def test_requests_under_way_are_counted(count: int) -> None:
    one = Standing()
    for _ in range(count):
        one.begins(0.0)
    assert one.outstanding == count
    one.ends()
    assert one.outstanding == count - 1
