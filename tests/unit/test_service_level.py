"""Availability and latency from what Prometheus counted: small cases by hand, and what nobody saw as the worst."""

from __future__ import annotations

import math

import msgspec
import pytest

from pawl.monitoring.independence import Service, share
from pawl.monitoring.month_facts import Scope
from pawl.monitoring.phases import Criterion, phases
from pawl.monitoring.service_level import Watched, service_of
from tests.unit.test_independence import report, traffic

HOURS = 200


def watched(**changes: object) -> Watched:
    """100 requests an hour: 60 within a second, 90 within two, 98 within five, all within ten."""
    per_hour = {1.0: 60.0, 2.0: 90.0, 5.0: 98.0, 10.0: 100.0}
    plain = Watched(
        answered=(100.0,) * HOURS, due=(100.0,) * HOURS, timed=(100.0,) * HOURS, edges=tuple(per_hour),
        within=tuple((n,) * HOURS for n in per_hour.values()), minutes=60 * HOURS, told=60 * HOURS, silent=0,
    )  # fmt: skip
    return msgspec.structs.replace(plain, **changes)


def judged(service: Service) -> dict[str, Criterion]:
    r = msgspec.structs.replace(report(Scope(name="", traffic=traffic(4000))), service=service)
    return {f"{c.name} {c.wanted}": c for p in phases(r) for c in p.criteria}


def test_percentiles_are_interpolated_and_bounded_by_edges() -> None:
    found = service_of(watched(), 20_000)
    assert found.p50 is not None and found.p95 is not None
    assert found.p50.value == pytest.approx(50 / 60) and (found.p50.lower, found.p50.upper) == (
        0.0, math.nextafter(1.0, 0.0)
    )  # fmt: skip
    assert found.p95.value == pytest.approx(2 + 3 * 5 / 8)
    assert found.p95.lower == 2.0 and found.p95.upper == math.nextafter(5.0, 0.0)
    assert (found.p95.counted, found.p95.sessions, found.p95.unit) == (20_000, 20_000, "seconds")


def test_what_prometheus_saw_whole_can_be_green() -> None:
    found = judged(service_of(watched(), 20_000))
    for name in ("Latency p50 under 2 s", "Latency p95 under 5 s", "Availability at least 99.5 %",
                 "Availability at least 99.9 %"):  # fmt: skip
        assert found[name].state == "green", found[name].why


def test_refusals_count_against_availability() -> None:
    one_in_a_hundred = service_of(watched(answered=(99.0,) * HOURS), 20_000)
    assert one_in_a_hundred.availability is not None and one_in_a_hundred.availability.value == pytest.approx(0.99)
    assert judged(one_in_a_hundred)["Availability at least 99.5 %"].state == "red"


def test_minutes_without_a_gateway_count_against_it_too() -> None:
    away = service_of(watched(told=60 * HOURS - 120, silent=120), 20_000)  # one in a hundred
    assert away.availability is not None and away.availability.value == pytest.approx(0.99)
    assert away.availability.upper == pytest.approx(0.99), "no request can have been answered then"
    assert judged(away)["Availability at least 99.5 %"].state == "red"
    assert judged(away)["Latency p95 under 5 s"].state == "green", "who is not there is not slow"


def test_what_nobody_saw_is_neither_green_nor_red() -> None:
    half = service_of(watched(told=60 * HOURS // 2), 20_000)
    assert half.availability is not None and half.availability.value == 1.0 and half.unseen == 60 * HOURS // 2
    assert half.availability.lower < 0.5 and half.availability.upper == 1.0
    for name in ("Latency p50 under 2 s", "Latency p95 under 5 s", "Availability at least 99.5 %"):
        criterion = judged(half)[name]
        assert criterion.state == "grey" and "nothing of 50.0 % of the time" in criterion.why
    few = judged(service_of(watched(), 3))["Availability at least 99.5 %"]
    assert few.state == "grey" and few.why.startswith("3 sessions: 7 more")


def test_slow_ones_are_red_and_beyond_the_last_edge_nothing_is_known() -> None:
    slow = watched(within=tuple((n,) * HOURS for n in (1.0, 2.0, 30.0, 60.0)))
    found = service_of(slow, 20_000)
    assert found.p50 is not None and (found.p50.lower, found.p50.upper) == (5.0, math.nextafter(10.0, 0.0))
    assert found.p95 is not None and (found.p95.value, found.p95.lower, found.p95.upper) == (10.0, 10.0, math.inf)
    states = judged(found)
    assert states["Latency p50 under 2 s"].state == states["Latency p95 under 5 s"].state == "red"


def test_hours_without_requests_and_nothing_at_all() -> None:
    quiet = (0.0,) * (HOURS - 20)
    some = watched(answered=(*quiet, *(100.0,) * 20), due=(*quiet, *(100.0,) * 20))
    found = service_of(some, 2000).availability
    alone = share((100.0,) * 20, (100.0,) * 20, 2000)
    assert found is not None and alone is not None and (found.lower, found.counted) == (alone.lower, 2000)
    nothing = watched(answered=(0.0,) * HOURS, due=(0.0,) * HOURS, timed=(0.0,) * HOURS, within=((0.0,) * HOURS,) * 4)
    empty = service_of(nothing, 0)
    assert (empty.availability, empty.p50, empty.p95) == (None, None, None)
