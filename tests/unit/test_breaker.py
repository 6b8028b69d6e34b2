"""The circuit breaker: when it opens, that it lets one probe through, and that nobody's fault counts for nothing."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pawl.fleet.upstream import BreakerSpec
from pawl.gateway.routing.breaker import Breaker

SPEC = BreakerSpec(consecutive=3, error_rate=0.5, slow_s=10, slow_rate=0.8, window=20, min_calls=10, open_s=5)


def test_three_failures_in_a_row_open_it_and_a_success_between_does_not() -> None:
    breaker = Breaker(SPEC)
    for _ in range(2):
        breaker.failed(0)
    breaker.succeeded(0, 1)
    for _ in range(2):
        breaker.failed(0)
    assert breaker.state(0) == "closed" and breaker.admits(0)
    breaker.failed(1)
    assert breaker.state(1) == "open" and not breaker.admits(5.9) and breaker.retry_after(2) == 4
    assert breaker.why == "3 failures in a row"


def test_one_probe_at_a_time_closes_or_opens_it_again() -> None:
    breaker = Breaker(SPEC)
    for _ in range(3):
        breaker.failed(0)
    assert breaker.state(5) == "half_open" and breaker.admits(5)
    breaker.begin(5)
    assert not breaker.admits(5.1), "the probe is under way"
    breaker.failed(6)
    assert breaker.state(10.9) == "open" and breaker.admits(11)
    breaker.begin(11)
    breaker.forget()  # its client went away
    assert breaker.admits(11.1), "the next call is the probe"
    breaker.begin(11.1)
    assert breaker.admits(17), "a probe that never came back does not keep it shut"
    breaker.succeeded(17, 1)
    assert breaker.state(17) == "closed" and breaker.why == ""
    breaker.failed(18)
    assert breaker.admits(18), "what was before is forgotten"


def test_a_rate_of_errors_opens_it_once_there_are_enough_calls() -> None:
    breaker = Breaker(SPEC)
    for n in range(9):
        breaker.failed(n) if n % 2 else breaker.succeeded(n, 1)
    assert breaker.admits(9)
    breaker.failed(9)
    assert not breaker.admits(9) and "5 of 10 calls failed" in breaker.why


def test_slow_calls_open_it_and_a_slow_probe_does_not_close_it() -> None:
    breaker = Breaker(SPEC)
    for n in range(10):
        breaker.succeeded(n, 11)
    assert not breaker.admits(9) and "took longer than 10 s" in breaker.why
    breaker.begin(20)
    breaker.succeeded(31, 11)
    assert not breaker.admits(31)
    breaker.begin(40)
    breaker.succeeded(41, 1)
    assert breaker.admits(41)


@given(st.lists(st.tuples(st.sampled_from(["ok", "slow", "failed", "gone"]), st.floats(0.01, 4)), max_size=80))
def test_it_always_admits_again_within_its_pause(steps: list[tuple[str, float]]) -> None:
    breaker, now, row = Breaker(SPEC), 0.0, 0
    for what, pause in steps:
        now += pause
        if not breaker.admits(now):
            assert breaker.state(now) != "closed" and breaker.why
            continue
        breaker.begin(now)
        if what == "failed":
            breaker.failed(now)
            row += 1
        elif what == "gone":
            breaker.forget()
        else:
            breaker.succeeded(now, 11 if what == "slow" else 1)
            row = 0
        if what == "failed" and row >= SPEC.consecutive:
            assert not breaker.admits(now)
    assert breaker.admits(now + SPEC.open_s), "for ever shut would be worse than any failure"
    assert 0 <= breaker.retry_after(now) <= SPEC.open_s + 1e-9
