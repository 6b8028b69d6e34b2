"""Limits, privacy modes, and the audit trail."""

from __future__ import annotations

import asyncio
import datetime as dt
import itertools
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pawl.fleet.limits import LimitsSpec
from pawl.fleet.reach import bases
from pawl.fleet.spec import FleetSpec
from pawl.gateway.access.audit_trail import AuditTrail
from pawl.gateway.access.limits import Meter, Rate, periods, retry_after, until_next
from pawl.gateway.access.privacy import MODES, leaks, narrowest, reachable
from pawl.rollout.control import Spent
from pawl.rollout.control_sqlite import SqliteControl

NOON = dt.datetime(2026, 11, 21, 12, tzinfo=dt.UTC).timestamp()


class Clock:
    def __init__(self, at: float = NOON) -> None:
        self.at = at

    def __call__(self) -> float:
        return self.at


# -- rates and budgets


@given(st.integers(1, 600), st.lists(st.floats(0, 5), min_size=1, max_size=300))
def test_a_rate_lets_through_a_minutes_worth_and_no_more(per_minute: int, pauses: list[float]) -> None:
    rate, now, let_in = Rate(per_minute), 0.0, list[float]()
    for pause in pauses:
        now += pause
        wait = rate.wait(now)
        if wait == 0:
            rate.take(now)
            let_in.append(now)
        else:
            assert wait <= 60 / per_minute + 1e-6, "one unit's time frees a place"
    for begin in let_in:
        assert sum(begin <= t < begin + 60 for t in let_in) <= 2 * per_minute
    assert sum(t == let_in[0] for t in let_in) <= per_minute


def test_tokens_are_taken_after_they_were_used_and_waited_for() -> None:
    clock = Clock()
    meter, limits = Meter(clock), LimitsSpec(tokens_per_minute=100)
    assert meter.exceeded("key:k", limits) is None
    meter.used("key:k", limits, 350, 0.0)
    spent = meter.exceeded("key:k", limits)
    assert spent is not None and spent.what == "100 tokens a minute" and 150 < spent.retry_after_s < 152
    clock.at += spent.retry_after_s
    assert meter.exceeded("key:k", limits) is None


def test_budgets_end_with_their_day_and_month() -> None:
    clock = Clock()
    meter, limits = Meter(clock), LimitsSpec(usd_per_day=1.0, usd_per_month=1.5)
    meter.used("agent:a", limits, 10, 1.0)
    spent = meter.exceeded("agent:a", limits)
    assert spent is not None and (spent.what, spent.retry_after_s) == ("1 USD a day", 12 * 3600)
    assert meter.exceeded("agent:b", limits) is None
    clock.at += 12 * 3600
    assert meter.exceeded("agent:a", limits) is None
    meter.used("agent:a", limits, 10, 0.5)
    spent = meter.exceeded("agent:a", limits)
    assert spent is not None and spent.what == "1.5 USD a month"
    assert clock.at + spent.retry_after_s == dt.datetime(2026, 12, 1, tzinfo=dt.UTC).timestamp()


@given(st.floats(0, 4e9))
def test_periods_hold_the_moment_and_end_after_it(at: float) -> None:
    day, month = periods(at)
    assert day.startswith(month)
    for period in (day, month):
        end = at + until_next(period, at)
        assert end > at and periods(end + 1)[0 if len(period) > 7 else 1] != period


def test_spending_is_counted_once_between_gateways(tmp_path: Path) -> None:
    control = SqliteControl(tmp_path / "control.sqlite")
    clock = Clock()
    one, two = Meter(clock), Meter(clock)
    limits = LimitsSpec(usd_per_day=1.0)
    for meter in (one, two):
        meter.used("key:k", limits, 5, 0.4)
    assert one.spent("key:k", "2026-11-21") == 0.4
    for meter in (one, two, one):
        control.spend(meter.take_fresh())
        meter.learn(control.spending(periods(clock())))
    assert one.spent("key:k", "2026-11-21") == pytest.approx(0.8)
    one.used("key:k", limits, 5, 0.4)
    rows = one.take_fresh()
    one.give_back(rows)  # the database could not be written
    assert sorted(r.period for r in one.take_fresh()) == ["2026-11", "2026-11-21"]
    assert one.exceeded("key:k", limits) is not None


def test_a_database_that_cannot_be_written_does_not_multiply_what_was_spent() -> None:
    clock = Clock()
    meter, limits = Meter(clock), LimitsSpec(usd_per_day=5.0)
    meter.used("key:k", limits, 10, 0.1)
    for _ in range(60):
        meter.give_back(meter.take_fresh())
    assert meter.spent("key:k", "2026-11-21") == pytest.approx(0.1)
    (day, _) = meter.take_fresh()
    assert (day.usd, day.tokens, day.requests) == (pytest.approx(0.1), 10, 1)


def test_retry_after_is_whole_seconds_and_never_none() -> None:
    assert [retry_after(s) for s in (0.0, 0.2, 1.0, 1.1, 59.5)] == [b"1", b"1", b"1", b"2", b"60"]
    assert Spent("s", "p", 1, 2, 3).plus(Spent("s", "p", 1, 1, 1)) == Spent("s", "p", 2, 3, 4)


# -- privacy


@given(st.lists(st.sampled_from([*MODES, None]), max_size=4))
def test_the_narrowest_mode_wins(modes: list[str | None]) -> None:
    found = narrowest(modes)
    assert all(MODES.index(found) >= MODES.index(m) for m in modes if m)  # type: ignore[arg-type]
    assert found in modes or found == "open"


def test_a_mode_that_is_not_known_is_as_narrow_as_can_be() -> None:
    assert narrowest(["open", "top-secret"]) == "strict"


def fleet(privacy: str = "open", agent: str = "open", **more: object) -> FleetSpec:
    return FleetSpec.model_validate(
        {
            "base_model": {"source": "x"},
            "upstreams": {
                "local": {"kind": "local", "base_url": "http://127.0.0.1:1/v1"},
                "both": {"kind": "local", "base_urls": ["http://127.0.0.1:3/v1", "http://gpu.example/v1"]},
                "far": {"kind": "local", "base_url": "http://gpu.example/v1"},
                "cloud": {"kind": "cloud", "base_url": "http://127.0.0.1:2/v1", "model": "m"},
            },
            "agents": [{"name": "an-agent", "task": "functional-negative", "privacy": agent, **more}],
            "gateway": {"privacy": privacy},
        }
    )


def urls(spec: FleetSpec) -> dict[str, tuple[str, ...]]:
    return {n: bases(u, {}) for n, u in spec.upstreams.items()}


def test_each_mode_reaches_less() -> None:
    spec = fleet()
    reach = reachable(spec, urls(spec))
    assert reach["open"] == {"local", "both", "far", "cloud"}
    assert reach["local_only"] == {"local", "both", "far"}
    assert reach["strict"] == {"local"}, "a cloud on loopback is a cloud, and a local one elsewhere is elsewhere"


@pytest.mark.parametrize(
    ("more", "field"),
    [
        ({"shadow": "cloud"}, "shadow"),
        ({"first_champion": "far"}, "first_champion"),
        ({"first_champion": "both"}, "first_champion"),
        ({"routing": {"fallback": ["cloud"]}}, "routing.fallback"),
        ({"routing": {"tiers": {"complex": ["far"]}}}, "routing.tiers.complex"),
        ({"routing": {"cascade": {"check": "schema", "upstream": "cloud"}}}, "routing.cascade.upstream"),
    ],
)
def test_strict_refuses_every_way_out_that_a_configuration_can_name(more: dict[str, object], field: str) -> None:
    for server, agent in itertools.product(["open", "strict"], ["open", "strict"]):
        spec = fleet(server, agent, **more)
        found = leaks(spec, urls(spec), {})
        assert any(field in problem for problem in found) == ("strict" in (server, agent)), found


def test_strict_refuses_services_outside_and_takes_a_clean_fleet() -> None:
    clean = fleet("strict")
    assert leaks(clean, urls(clean), {"telemetry": "http://127.0.0.1:5/v1/traces"}) == []
    assert "telemetry" in leaks(clean, urls(clean), {"telemetry": "https://otel.example/v1"})[0]
    assert leaks(fleet(), urls(clean), {"telemetry": "https://otel.example/v1"}) == []


# -- the audit trail


async def test_many_entries_share_commits_and_each_waits_for_its_own(tmp_path: Path) -> None:
    commits: list[int] = []

    class Counting(SqliteControl):
        def audit_many(self, entries):  # type: ignore[no-untyped-def]
            commits.append(len(entries))
            super().audit_many(entries)

    control = Counting(tmp_path / "control.sqlite")
    trail = AuditTrail(control)
    await asyncio.gather(*(trail.add("cloud call", "key-1", {"n": n}) for n in range(50)))
    assert len(control.audit_log()) == 50 and control.verify_audit() is None
    assert len(commits) < 10, commits
    trail.note("blocked", "key-1", {})
    await trail.drain()
    assert len(control.audit_log()) == 51


async def test_an_entry_that_cannot_be_written_stops_what_it_tells_of(tmp_path: Path) -> None:
    class Failing(SqliteControl):
        def audit_many(self, entries):  # type: ignore[no-untyped-def]
            raise OSError("the disk is gone")

    trail = AuditTrail(Failing(tmp_path / "control.sqlite"))
    with pytest.raises(OSError, match="gone"):
        await trail.add("cloud call", "key-1", {})
    trail.note("blocked", "key-1", {})
    await trail.drain()
