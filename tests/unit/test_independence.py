"""Money and independence: small cases by hand, and that nothing is green because nobody looked."""

from __future__ import annotations

import math

import msgspec
import pytest

from pawl.evaluation.report import Interval
from pawl.fleet.costs import HOURS_A_MONTH, CostsSpec, MachineCost
from pawl.fleet.upstream import MachineSpec, UpstreamSpec
from pawl.monitoring.break_even import Outlay, break_even
from pawl.monitoring.independence import (
    CloudUsed,
    Figure,
    Independence,
    lines_of,
    outlook,
    quality_ratio,
    share,
    share_bounds,
)
from pawl.monitoring.independence_page import even, headline, render, text, told
from pawl.monitoring.month_facts import Day, Domain, Memory, Month, Pairs, Scope, Tallies, Traffic
from pawl.monitoring.phases import judged, missing, phases

CLOUD = CloudUsed(upstream="cloud", model="big", stand_in=False, prompt=2.0, completion=10.0, agents=("a",))


def traffic(sessions: int = 400, **changes: float) -> Traffic:
    """Each session has two answers, both local, that would have cost a dollar each in the cloud."""
    each = {
        "sessions": 1, "calls": 2, "answered": 2, "local": 2, "fallback": 0, "due": 2, "served": 2, "paid": 0,
        "cloud_paid": 0, "shadow_paid": 0, "shadow_cloud_paid": 0, "all_cloud": 2,
    }  # fmt: skip
    return Traffic(**{name: (float(value),) * sessions for name, value in (each | changes).items()})


def pairs(local: float, cloud: float = 0.8, sources: int = 200) -> Pairs:
    """One pair of each source; half of the local scores lie a tenth above, half a tenth under."""
    scores = tuple(local + (0.1 if n % 2 else -0.1) for n in range(sources))
    ones = (1.0,) * sources
    return Pairs(local=scores, cloud=(cloud,) * sources, count=ones, sources=ones)


def report(scope: Scope, outlay: float | None = 100.0, **changes: object) -> Independence:
    facts = Month(fleet=scope, first=0.0, last=1.0)
    line, agents = lines_of(facts, outlay)
    plain = Independence(
        month="2026-11", since=0.0, until=1.0, whole=True, agent="", clouds=(CLOUD,), stand_in=False, line=line,
        agents=agents, workflows=(), facts=facts, machines_usd=outlay, hours=HOURS_A_MONTH, even=None,
        unpriced="" if outlay is not None else "nobody said what the local machine costs",
    )  # fmt: skip
    return msgspec.structs.replace(plain, **changes)


def states(r: Independence) -> dict[str, list[str]]:
    return {p.name: [c.state for c in p.criteria] for p in phases(r)}


def test_a_share_knows_that_what_never_happened_may() -> None:
    # Clopper and Pearson for 0 of 100: 1 - 0.025^(1/100) = 3.62 %, the "rule of three" in its two-sided form
    found = share((0.0,) * 100, (1.0,) * 100, 100)
    assert found is not None and found.value == 0.0
    assert (found.lower, found.upper) == (0.0, pytest.approx(1 - 0.025 ** (1 / 100), abs=1e-9))
    alike = share((0.0,) * 10, (10.0,) * 10, 10)  # the same hundred from ten sessions tell less
    assert alike is not None and alike.upper > found.upper
    alone = share((50.0,), (50.0,), 1)
    assert alone is not None and (alone.lower, alone.upper) == (0.0, 1.0)  # of one session nothing follows
    assert share((), (), 0) is None and share((0.0,), (0.0,), 1) is None


def test_sessions_that_differ_widen_a_share() -> None:
    apart = share_bounds((10.0, 0.0) * 20, (10.0,) * 40, 40)
    mixed = share_bounds((5.0,) * 40, (10.0,) * 40, 40)
    assert apart[1] - apart[0] > 1.5 * (mixed[1] - mixed[0]) and apart[0] < 0.5 < apart[1]


def test_what_is_saved_is_all_cloud_less_clouds_and_machines() -> None:
    scope = Scope(name="", traffic=traffic(cloud_paid=0.25, paid=0.3, shadow_paid=0.1, shadow_cloud_paid=0.1))
    line, _ = lines_of(Month(fleet=scope), 100.0)
    assert line.saved is not None and line.saved.value == pytest.approx(400 * (2 - 0.25 - 0.1) - 100)
    assert line.saved_share is not None and line.saved_share.value == pytest.approx(1 - (140 + 100) / 800)
    assert line.saved_share.lower <= line.saved_share.value <= line.saved_share.upper
    assert line.cost_usd == pytest.approx(100 + 100) and line.cost_per_call == pytest.approx(200 / 800)
    # by the token, where no machine has a price by the hour
    line, _ = lines_of(Month(fleet=scope), None)
    assert line.saved is not None and line.saved.value == pytest.approx(400 * (2 - 0.3 - 0.1))
    # and what is paid every month all the same comes on top
    line, _ = lines_of(Month(fleet=scope), 100.0, by_token=True)
    assert line.saved is not None and line.saved.value == pytest.approx(400 * (2 - 0.3 - 0.1) - 100)
    assert line.saved_share is not None and line.saved_share.value == pytest.approx(1 - (160 + 100) / 800)
    assert (line.cost_usd, line.shadow_usd) == (pytest.approx(120 + 100), pytest.approx(40))


def test_agents_share_the_machines_by_their_local_tokens() -> None:
    whole = Scope(name="", traffic=traffic(), tallies=Tallies(local_tokens=400))
    parts = [Scope(name=n, traffic=traffic(200), tallies=Tallies(local_tokens=t)) for n, t in (("a", 300), ("b", 100))]
    _, lines = lines_of(Month(fleet=whole, agents=tuple(parts)), 100.0)
    assert [x.cost_usd for x in lines] == [pytest.approx(75), pytest.approx(25)]


def test_a_ratio_to_the_cloud_is_paired_and_needs_a_cloud_above_zero() -> None:
    found = quality_ratio(pairs(0.72))
    assert found is not None and found.value == pytest.approx(0.9)
    assert found.lower < 0.9 < found.upper and (found.counted, found.sessions) == (200, 200)
    equal = quality_ratio(pairs(0.8, sources=40))
    assert equal is not None and equal.lower < 0.95  # 40 pairs do not show 95 %, however equal
    assert quality_ratio(pairs(0.5, cloud=0.0)) is None and quality_ratio(Pairs()) is None


@pytest.mark.parametrize(
    ("value", "lower", "upper", "wanted"),
    [(0.97, 0.96, 0.98, "green"), (0.90, 0.88, 0.92, "red"), (0.96, 0.93, 0.99, "grey"), (0.94, 0.90, 0.98, "grey")],
)
def test_an_interval_decides_only_where_all_of_it_agrees(value: float, lower: float, upper: float, wanted: str) -> None:
    figure = Figure(value=value, lower=lower, upper=upper, sessions=100, counted=100)
    assert judged(figure, 0.95, least=True)[0] == wanted
    mirror = Figure(value=1 - value, lower=1 - upper, upper=1 - lower, sessions=100, counted=100)
    assert judged(mirror, 0.05, least=False)[0] == wanted


def test_too_few_are_grey_with_the_number_that_is_missing() -> None:
    sure = Figure(value=1.0, lower=1.0, upper=1.0, sessions=4, counted=4)
    assert judged(sure, 0.4, least=True) == ("grey", "4 sessions: 6 more are needed before they say anything")
    few = Figure(value=1.0, lower=0.99, upper=1.01, unit="ratio", sessions=20, counted=20)
    assert judged(few, 0.9, least=True)[1].startswith("20 pairs of answers: 10 more")
    # half a width of 4 points where 2 are left: four times as many, three times as many more
    wide = Figure(value=0.97, lower=0.93, upper=1.0, sessions=100, counted=100)
    assert missing(wide, 0.95) == 300
    assert "about 300 sessions more" in judged(wide, 0.95, least=True)[1]
    # nothing failed yet: that bound comes nearer as 1/n
    assert missing(Figure(value=1.0, lower=0.98, upper=1.0, sessions=100, counted=100), 0.99) == 100
    assert missing(Figure(value=0.95, lower=0.9, upper=1.0, sessions=9, counted=9), 0.95) is None


def test_nothing_is_green_by_default() -> None:
    r = report(Scope(name=""), None)
    assert {s for found in states(r).values() for s in found} == {"grey"}
    assert [p.verdict for p in phases(r)] == ["not yet"] * 4
    assert all(c.why for p in phases(r) for c in p.criteria)
    # a machine that nobody gave a price is no saving
    free = report(Scope(name="", traffic=traffic()), None)
    (savings,) = [c for c in phases(free)[0].criteria if c.name == "Savings"]
    assert savings.state == "grey" and "nobody said" in savings.why and savings.figure is None


def test_the_four_phases_as_they_are_asked_for() -> None:
    quick = {"value": 1.0, "lower": 0.9, "upper": 1.1, "unit": "seconds", "sessions": 400, "counted": 800}
    good = pairs(0.8, sources=2000)
    scope = Scope(name="", traffic=traffic(4000), pairs={"all": good, "simple": good, "tuned": good})
    r = report(
        scope,
        memory=Memory(base=1000, adapters={f"{n}-v1": 50 for n in "abcdefghij"}),
        domains=(Domain(agent="a", adapter="a-v1", ratio=Interval(1.2, 1.12, 1.3), items=120),),
    )
    line = msgspec.structs.replace(r.line, p50=Figure(**quick), p95=Figure(**quick))
    r = msgspec.structs.replace(r, line=line)
    names = {p.name: [f"{c.name} {c.wanted}" for c in p.criteria] for p in phases(r)}
    assert names == {
        "MVP": ["Quality of cloud's, simple tasks at least 90 %", "Savings at least 50 %",
                "Answered by local models at least 40 %"],
        "Production": ["Answered by local models at least 80 %", "Quality of cloud's at least 95 %",
                       "Cost down by at least 60 %", "Latency p50 under 2 s", "Latency p95 under 5 s",
                       "Availability at least 99.5 %"],
        "Fine-tuning": ["Quality of cloud's, answers of adapters at least 95 %",
                        "Adapter memory against full models down at least 80 %",
                        "Multi-task adapters in their domain up at least 10 %"],
        "Independence": ["Answered by local models at least 99 %", "Cloud fallback under 1 %",
                         "Quality of cloud's at least 95 %", "Availability at least 99.9 %",
                         "Cloud spend beside fallback none", "Quality by pattern memory up 5-10 % over 30 days"],
    }  # fmt: skip
    assert [p.verdict for p in phases(r)] == ["go", "not yet", "go", "not yet"]
    assert states(r)["Production"] == ["green"] * 3 + ["grey"] * 3  # records see the better part of these
    assert states(r)["Independence"] == ["green"] * 3 + ["grey", "green", "grey"]  # nothing records a pattern memory
    (memory,) = [c for c in phases(r)[2].criteria if "memory" in c.name]
    assert memory.figure is not None and memory.figure.value == pytest.approx(1 - (1000 + 500) / 10_000)
    assert "95.0 % were the base not counted" in memory.why
    alone = msgspec.structs.replace(r, memory=Memory(base=1000, adapters={"a-v1": 10}))
    assert states(alone)["Fine-tuning"][1] == "red"  # beside its base model one adapter takes no less than one model
    heavy = msgspec.structs.replace(r, memory=Memory(base=1000, adapters={"whole": 1000}))
    assert states(heavy)["Fine-tuning"][1] == "red"


@pytest.mark.parametrize(
    ("name", "good", "bad", "unclear"),
    [
        ("Availability", (1.0, 0.999, 1.0), (0.95, 0.94, 0.96), (0.995, 0.99, 1.0)),
        ("Latency p50", (0.5, 0.4, 0.6), (3.0, 2.5, 3.5), (2.0, 1.5, 2.5)),
        ("Latency p95", (0.5, 0.4, 0.6), (9.0, 8.0, 9.9), (5.0, 4.5, 5.5)),
    ],
)
def test_what_is_recorded_in_part_can_be_red_and_never_green(
    name: str, good: tuple[float, ...], bad: tuple[float, ...], unclear: tuple[float, ...]
) -> None:
    r = report(Scope(name="", traffic=traffic(4000)))
    field = {"Availability": "availability", "Latency p50": "p50", "Latency p95": "p95"}[name]
    for (value, lower, upper), wanted in ((good, "grey"), (bad, "red"), (unclear, "grey")):
        figure = Figure(value=value, lower=lower, upper=upper, sessions=400, counted=800,
                        unit="share" if name == "Availability" else "seconds")  # fmt: skip
        told = msgspec.structs.replace(r, line=msgspec.structs.replace(r.line, **{field: figure}))
        (found,) = [c for c in phases(told)[1].criteria if c.name == name]
        assert found.state == wanted and ("in no record" in found.why) == (wanted == "grey")
        assert found.figure == figure  # it is told all the same


def test_what_is_shown_to_be_too_low_has_a_word_of_its_own() -> None:
    for local, wanted in ((0.64, ["change approach", "pause", "extend"]), (0.70, ["not yet", "pause", "extend"])):
        low = pairs(local, sources=4000)  # 80 % and 87.5 % of the cloud's
        scope = Scope(name="", traffic=traffic(), pairs={"all": low, "simple": low, "tuned": low})
        assert [p.verdict for p in phases(report(scope))][:3] == wanted
    few = pairs(0.4, sources=12)
    scope = Scope(name="", traffic=traffic(), pairs={"simple": few})
    assert phases(report(scope))[0].verdict == "not yet"  # twelve pairs stop nobody


def test_any_cloud_call_beside_fallback_is_spend() -> None:
    tallies = Tallies(cloud_calls_beside_fallback=3, cloud_usd_beside_fallback=0.0)
    r = report(Scope(name="", traffic=traffic(), tallies=tallies))
    assert states(r)["Independence"][4] == "red"  # even where its price is 0


def test_break_even_by_hand() -> None:
    outlay = Outlay.of(
        CostsSpec(fixed_usd=600, usd_per_month=20), {"box": MachineCost(usd_per_hour=0.5, count=2, hours_per_month=100)}
    )
    assert outlay is not None and outlay.usd_per_month == pytest.approx(120)
    assert Outlay.of(CostsSpec(), {}) is None
    half = HOURS_A_MONTH / 2  # half a month's traffic avoided 160: 320 a month, 200 net, 3 months
    found = break_even((160.0, 110.0, 210.0), 1000, half, outlay)
    assert (found.net, found.months) == (pytest.approx(200), pytest.approx(3))
    assert (found.months_soonest, found.months_latest) == (pytest.approx(2), pytest.approx(6))
    assert found.calls_to_cover == pytest.approx(2000 * 120 / 320)
    never = break_even((40.0, 30.0, 50.0), 1000, half, outlay)
    assert (never.net, never.months, never.months_latest) == (pytest.approx(-40), None, None)
    assert break_even((0.0, -math.inf, math.inf), 0, half, outlay).calls_to_cover is None


def test_the_outlook_counts_the_machines_once() -> None:
    line, _ = lines_of(Month(fleet=Scope(name="", traffic=traffic())), 100.0)
    outlay = Outlay(machines={"box": MachineCost(usd_per_hour=100 / HOURS_A_MONTH)})
    found = outlook(line, outlay, HOURS_A_MONTH)
    assert found is not None and found.avoided == pytest.approx(800) and found.net == pytest.approx(700)
    assert even(report(Scope(name="", traffic=traffic()), even=found)).startswith("from the first month, $700.00")
    assert outlook(line, None, HOURS_A_MONTH) is None


def test_machines_are_those_of_the_upstreams_unless_others_are_named() -> None:
    priced = UpstreamSpec(
        kind="local", base_url="http://a/v1", base_urls=("http://a/v1", "http://b/v1"),
        machine=MachineSpec(usd_per_hour=0.5, completion_tokens_per_s=1, prompt_tokens_per_s=1),
    )  # fmt: skip
    plain = UpstreamSpec(kind="local", base_url="http://c/v1")
    (found,) = CostsSpec().paid_by_hour({"local": priced, "other": plain}).values()
    assert (found.usd_per_hour, found.count) == (0.5, 2)
    assert CostsSpec().paid_by_hour({"other": plain}) == {}
    named = CostsSpec(machines={"box": MachineCost(usd_per_hour=2)})
    assert named.paid_by_hour({"local": priced}) == named.machines


def test_stand_ins_are_named_wherever_they_count() -> None:
    good = pairs(0.8, sources=300)
    day = Day(day="2026-11-01", answered=2, local=2, fallback=0, due=2, served=2, paid=0, shadow_paid=0, all_cloud=2)
    r = report(Scope(name="", traffic=traffic(), pairs={"all": good, "simple": good}), stand_in=True)
    r = msgspec.structs.replace(r, facts=msgspec.structs.replace(r.facts, days=(day, day)))
    found = phases(r)
    against = [c for p in found for c in p.criteria if c.name.startswith(("Quality of cloud", "Savings", "Cost down"))]
    assert against and all(c.stand_in for c in against)
    assert (found[0].verdict, found[0].why) == ("go", "every criterion is shown, against a STAND-IN for the cloud")
    page, said = render(r, found, 0.0), text(r, found)
    assert page.count("STAND-IN") > 8 and "STAND-IN" in headline(r)
    for word in ("quality over cloud's", "saved", "all in the cloud"):
        assert all("STAND-IN" in line for line in said.splitlines() if line.strip().startswith(word))
    plain = msgspec.structs.replace(r, stand_in=False)
    assert "STAND-IN" not in render(plain, phases(plain), 0.0) + text(plain, phases(plain))


def test_names_from_outside_are_only_text_on_the_page() -> None:
    name = "</style><script>alert(1)</script>"
    r = report(Scope(name="", traffic=traffic()))
    r = msgspec.structs.replace(r, agents=(msgspec.structs.replace(r.line, name=name),))
    page = render(r, phases(r), 0.0)
    assert "<script>" not in page and "&lt;script&gt;" in page


def test_figures_near_a_bound_are_told_exactly() -> None:
    assert told(Figure(value=0.941, lower=0.933, upper=0.9496)) == "94.1 % (93.3 % to 94.96 %)"
    assert told(Figure(value=0.9990, lower=0.9984, upper=0.9994)) == "99.90 % (99.84 % to 99.94 %)"
    assert told(Figure(value=1.0, lower=0.5, upper=1.0)) == "100.0 % (50.0 % to 100.0 %)"
    assert told(Figure(value=2.5, lower=2.5, upper=2.5, unit="usd")) == "$2.500"
    assert told(None) == "not measured"
