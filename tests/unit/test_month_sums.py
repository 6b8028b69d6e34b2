"""A month of a real lake, summed: against the same sums in Python, and against small cases counted by hand."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

from pawl.fleet.upstream import UpstreamSpec
from pawl.gateway import chains
from pawl.lake.journal import Journal
from pawl.lake.parquet_lake import ParquetLake
from pawl.lake.records import Feedback, Interaction
from pawl.monitoring import month_sql
from pawl.monitoring.economics import summarise
from pawl.monitoring.independence import lines_of, share_bounds
from pawl.monitoring.month_duckdb import CloudPrice, summed
from pawl.monitoring.month_facts import Month
from pawl.monitoring.phases import judged

CLOUD = UpstreamSpec(
    kind="cloud", base_url="http://127.0.0.1:1/v1", usd_per_million_prompt=2.0, usd_per_million_completion=10.0
)
PRICE = CloudPrice("big", 2.0, 10.0)
SINCE = 1_000_000.0
UNTIL = SINCE + 100_000


def row(id: str, **changes: Any) -> Interaction:
    plain = Interaction(
        id=id, at=SINCE + 10, agent="a", session=f"s-{id}", key_id="k", arm="base", arm_kind="local",
        messages=[], prompt_tokens=100, completion_tokens=50, latency_s=1.0, complexity="simple",
    )  # fmt: skip
    return msgspec.structs.replace(plain, **changes)


def shadow(of: Interaction, **changes: Any) -> Interaction:
    told = {"role": "shadow", "shadow_of": of.id, "arm": "big", "arm_kind": "cloud", "session": of.session}
    return row(f"shadow-{of.id}", **(told | {"task": of.task} | changes))


def scored(of: Interaction, score: float, at: float = SINCE + 20, source: str = "client") -> Feedback:
    identity = f"f-{of.id}-{source}-{at}"
    return Feedback(id=identity, at=at, interaction=of.id, agent=of.agent, kind="outcome", score=score, source=source)


def month(folder: Path, records: Sequence[Any], journalled: Sequence[Any] = ()) -> Month:
    lake = ParquetLake(folder / "lake", folder / "journal")
    lake.add(records)
    if journalled:
        Journal(folder / "journal", "w").append(journalled)
    return summed(
        lake, SINCE, UNTIL, clouds={"a": PRICE}, default=PRICE, base_names=("base",), share_bounds=share_bounds
    )


def test_the_sums_are_those_of_python(tmp_path: Path) -> None:
    rng, rows = random.Random(3), []
    for n in range(400):
        local = rng.random() < 0.7
        made = row(
            f"i{n}", at=SINCE + rng.random() * 90_000, session=f"s{n // 3}", arm="base" if local else "big",
            arm_kind="local" if local else "cloud", prompt_tokens=rng.randrange(3) * 40,
            completion_tokens=rng.randrange(3) * 30, cost_usd=0.0 if local else rng.random(),
            status=rng.choice((200, 200, 200, 502)), broken=rng.random() < 0.05,
            role="draft" if rng.random() < 0.05 else "answer",
        )  # fmt: skip
        rows.append(made)
        if rng.random() < 0.5:
            told = {"completion_tokens": rng.randrange(300), "cost_usd": rng.random(), "at": made.at + 1}
            rows.append(shadow(made, **told, status=rng.choice((200, 500)), arm=rng.choice(("big", "big", "other"))))
    wanted = summarise(rows, name="big", upstream=CLOUD)
    found = month(tmp_path, rows)
    traffic, tallies = found.fleet.traffic, found.fleet.tallies
    assert (traffic.total("answered"), traffic.total("local")) == (wanted.answered, wanted.answered_locally)
    for name, value in (
        ("paid", wanted.spent_usd), ("cloud_paid", wanted.cloud_usd), ("shadow_paid", wanted.shadow_usd),
        ("all_cloud", wanted.all_cloud_usd),
    ):  # fmt: skip
        assert traffic.total(name) == pytest.approx(value), name
    assert (tallies.priced_by_shadow, tallies.priced_by_own) == (wanted.priced_by_shadow, wanted.priced_by_own)
    assert (tallies.unpriced, tallies.shadows) == (wanted.unpriced, wanted.shadows)
    assert sum(traffic.sessions) == len({r.session for r in rows}) == len(traffic.sessions)
    assert sum(d.answered for d in found.days) == wanted.answered
    assert found.agents[0].traffic == traffic  # one agent is the fleet


def test_nothing_is_saved_by_a_month_that_the_cloud_answered(tmp_path: Path) -> None:
    told = {"arm": "big", "arm_kind": "cloud", "cached_tokens": 9_000, "prompt_tokens": 10_000, "cost_usd": 0.003}
    rows = [row(f"i{n}", **told) for n in range(200)]  # by its full price each would have been 0.0205
    found = month(tmp_path, rows)
    line, _ = lines_of(found, None)
    assert line.all_cloud_usd == pytest.approx(line.cost_usd) == pytest.approx(0.6)
    assert line.saved_share is not None and line.saved_share.value == pytest.approx(0.0)
    assert judged(line.saved_share, 0.60, least=True)[0] == "red"
    alike = [row("x"), shadow(row("x"), cost_usd=0.0001), row("y"), shadow(row("y"), completion_tokens=70)]
    found = month(tmp_path / "other", alike)  # the second shadow was recorded before there were prices
    assert found.fleet.traffic.total("all_cloud") == pytest.approx(0.0001 + (100 * 2 + 70 * 10) / 1e6)


def test_what_follows_at_once_is_the_same_request(tmp_path: Path) -> None:
    failed = {"status": 502, "error": "busy", "latency_s": 0.5, "session": "one"}
    rows = [
        row("a1", at=SINCE + 10, **failed),  # then a cloud took over
        row("a2", at=SINCE + 10.55, session="one", arm="big", arm_kind="cloud", fallback=True, latency_s=2.0),
        row("b1", at=SINCE + 100, **failed),  # nobody did; the client came again by itself
        row("b2", at=SINCE + 100.95, session="one", arm="big", arm_kind="cloud", fallback=True, latency_s=2.0),
        row("c", status=400, error="bad"),  # wrong in itself
        row("d", status=499, broken=True),  # the client left
        row("e", status=429, error="busy"),
    ]
    found = month(tmp_path, rows)
    assert (found.fleet.traffic.total("due"), found.fleet.traffic.total("served")) == (4, 2)
    assert (found.fleet.tallies.refused, found.fleet.tallies.left) == (1, 1)
    assert found.fleet.traffic.total("fallback") == 2
    assert found.fleet.p95 is not None and found.fleet.p95.value == pytest.approx(2.55)  # both calls, from the first
    assert found.fleet.p50 is not None and found.fleet.p50.value == pytest.approx(2.0)
    assert (found.hours_used, found.hours_down) == (1, 0)


def test_a_chain_is_one_request_and_its_steps_are_what_costs(tmp_path: Path) -> None:
    assert month_sql.CHAIN_ARM == chains.ARM
    chain = row("c", agent="both", arm="chain", prompt_tokens=0, completion_tokens=0, latency_s=9.0, session="x")
    steps = [
        row(f"step{n}", parent="c", step=f"n{n}", session="x", agent=agent, cost_usd=0.25, at=SINCE + 10 + n)
        for n, agent in enumerate(("a", "b"))
    ]
    named = row("w", task={"workflow": "nightly"}, cost_usd=0.5)
    found = month(tmp_path, [chain, *steps, named])
    assert (found.fleet.traffic.total("due"), found.fleet.traffic.total("answered")) == (2, 3)
    assert found.fleet.p95 is not None and found.fleet.p95.value == 9.0
    flows = {w.name: w for w in found.workflows}
    assert (flows["both"].chain, flows["both"].runs, flows["both"].calls, flows["both"].paid) == (True, 1, 2, 0.5)
    assert (flows["nightly"].chain, flows["nightly"].runs, flows["nightly"].paid) == (False, 1, 0.5)
    agents = {a.name: a for a in found.agents}
    assert agents["b"].traffic.total("all_cloud") == pytest.approx((100 * 2 + 50 * 10) / 1e6)  # the default's price


def test_pairs_are_what_serves_beside_the_cloud(tmp_path: Path) -> None:
    served = row("x", arm="a-v1-00000000", task={"source": "svc"})
    plain = row("y", complexity="complex", task={"source": "other"})
    by_cloud = row("z", arm="big", arm_kind="cloud")
    tried = row("t", arm="big", arm_kind="cloud", rollout="r1", stage="shadow")
    rows: list[Any] = [served, plain, by_cloud, tried]
    for of, mine, theirs in ((served, 0.6, 0.8), (plain, 0.5, 1.0)):
        rows += [s := shadow(of), scored(of, mine), scored(s, theirs, source="grader")]
    rows += [scored(served, 0.1, at=SINCE + 15)]  # said before, and taken back since
    local = {"arm": "base", "arm_kind": "local"}
    rows += [s := shadow(by_cloud, **local), scored(s, 0.3, source="grader"), scored(by_cloud, 0.9, source="grader")]
    rows += [s := shadow(tried, **local, rollout="r1"), scored(s, 0.0), scored(tried, 1.0)]  # serves nobody yet
    rows += [row("u"), scored(row("u"), 1.0)]  # nothing to compare it with
    pairs = month(tmp_path, rows).fleet.pairs
    everything = pairs["all"]
    assert sum(everything.local) == pytest.approx(0.6 + 0.5 + 0.3)
    assert sum(everything.cloud) == pytest.approx(0.8 + 1.0 + 0.9)
    assert (sum(everything.count), sum(everything.sources), everything.same_voice) == (3, 3, 1)
    assert (sum(pairs["simple"].local), sum(pairs["simple"].count)) == (pytest.approx(0.9), 2)
    assert (sum(pairs["tuned"].local), sum(pairs["tuned"].count)) == (pytest.approx(0.6), 1)


def test_the_month_ends_where_it_ends_and_what_is_foreign_is_left_out(tmp_path: Path) -> None:
    rows = [
        row("before", at=SINCE - 1), row("first", at=SINCE), row("last", at=UNTIL - 0.001), row("after", at=UNTIL),
        row("old", reason="imported from langfuse", arm_kind="cloud"), row("vector", endpoint="embeddings"),
    ]  # fmt: skip
    found = month(tmp_path, rows, journalled=[row("fresh"), row("first", at=SINCE)])
    assert found.fleet.traffic.total("answered") == 3  # the journal's too, and none twice
    assert (found.imported, found.embeddings) == (1, 1)


def test_many_sessions_fall_into_a_thousand_groups(tmp_path: Path) -> None:
    rows = [row(f"i{n}", session=f"s{n}", cost_usd=0.5) for n in range(1500)]
    traffic = month(tmp_path, rows).fleet.traffic
    assert len(traffic.sessions) <= 1000 and sum(traffic.sessions) == 1500
    assert (traffic.total("answered"), traffic.total("paid")) == (1500, pytest.approx(750))


def test_an_empty_lake_is_an_empty_month(tmp_path: Path) -> None:
    found = month(tmp_path, [])
    assert found.first is None and found.agents == () and found.fleet.traffic.total("answered") == 0
