"""A day's figures are the month's, on the same records: fallbacks, imported rows, embeddings, chains."""

from __future__ import annotations

import datetime as dt
import random
from pathlib import Path
from typing import Any

import msgspec
import pytest

from pawl.lake.parquet_lake import ParquetLake
from pawl.lake.records import Feedback, Interaction
from pawl.monitoring.day_duckdb import traffic
from pawl.monitoring.day_summary import AgentDay, Traffic, problems
from pawl.monitoring.independence import share_bounds
from pawl.monitoring.month_duckdb import summed
from pawl.monitoring.month_facts import Scope

START = dt.datetime(2026, 3, 2, tzinfo=dt.UTC).timestamp()
END = START + 86_400


def call(id: str, **more: Any) -> Interaction:
    plain = Interaction(
        id=id, at=START + 60, agent="a", session=f"s-{id}", key_id="k", arm="base", arm_kind="local", messages=[],
        prompt_tokens=100, completion_tokens=50, latency_s=0.3,
    )  # fmt: skip
    return msgspec.structs.replace(plain, **more)


def stood_in(n: int, at: float, **more: Any) -> list[Interaction]:
    """A request that the local model failed, and a cloud answered at once."""
    told = {"session": f"f{n}", **more}
    return [
        call(f"a{n}", at=at, status=503, error="down", latency_s=0.1, **told),
        call(f"b{n}", at=at + 0.1, arm="cloud", arm_kind="cloud", fallback=True, latency_s=0.5, cost_usd=0.01, **told),
    ]


def lake(folder: Path, rows: list[Any]) -> ParquetLake:
    made = ParquetLake(folder / "lake", folder / "journal")
    made.add(rows)
    return made


def month(lake: ParquetLake) -> dict[str, Scope]:
    found = summed(lake, START, END, clouds={}, default=None, base_names=("base",), share_bounds=share_bounds)
    return {a.name: a for a in found.agents}


def as_a_day(of: Scope) -> Traffic:
    """What the month's report says, in the day's words."""
    t = of.traffic
    return Traffic(
        answered=int(t.total("served")), failed=int(t.total("due") - t.total("served")),
        answered_locally=int(t.total("local")), fallbacks=int(t.total("fallback")), spent_usd=t.total("paid"),
        shadow_usd=t.total("shadow_paid"), p95_s=of.p95.value if of.p95 is not None else None,
    )  # fmt: skip


def rounded(t: Traffic) -> Traffic:
    return msgspec.structs.replace(t, spent_usd=round(t.spent_usd, 9), shadow_usd=round(t.shadow_usd, 9))


def test_requests_are_counted_and_not_the_models_they_took(tmp_path: Path) -> None:
    """100 requests, all served, 30 by the cloud; beside them 200 calls of another tool, and embeddings."""
    rows: list[Any] = [row for n in range(30) for row in stood_in(n, START + 60 * n)]
    rows += [call(f"l{n}", at=START + 60 * n) for n in range(70)]
    told = {"arm": "gpt-4", "arm_kind": "cloud", "latency_s": 9.0, "cost_usd": 0.05, "reason": "imported from langfuse"}
    rows += [call(f"i{n}", key_id="", **told) for n in range(200)]
    rows += [call(f"e{n}", endpoint="embeddings", status=500, error="down") for n in range(5)]
    found = traffic(held := lake(tmp_path, rows), START, END)[0]["a"]
    assert rounded(found) == Traffic(100, 0, 70, 30, 0.3, 0.0, pytest.approx(0.6))  # type: ignore[arg-type]
    said = problems(AgentDay(agent="a", champion="base", traffic=found, watched_at=END), END)
    assert said == ["clouds stood in for 30.0% of the answers"]
    assert rounded(found) == rounded(as_a_day(month(held)["a"]))


def test_any_day_is_the_month_of_the_same_records(tmp_path: Path) -> None:
    rng, rows = random.Random(5), list[Any]()
    for n in range(300):
        at = START + rng.random() * 80_000
        told = {"agent": rng.choice("ab"), "key_id": rng.choice("kl")}
        if rng.random() < 0.2:
            rows += stood_in(n, at, **told)
            continue
        status = rng.choice((200, 200, 200, 200, 400, 429, 499, 502))
        made = call(
            f"c{n}", at=at, session=f"s{n // 3}", status=status, error=None if status == 200 else "x",
            broken=status == 499 or rng.random() < 0.05, latency_s=rng.random(), cost_usd=rng.random(),
            role="draft" if rng.random() < 0.1 else "answer", **told,
        )  # fmt: skip
        rows.append(made)
        if rng.random() < 0.3:
            told |= {"role": "shadow", "shadow_of": made.id, "arm": "cloud", "arm_kind": "cloud"}
            rows.append(call(f"h{n}", at=at, cost_usd=rng.random(), **told))
    rows.append(call("chain", agent="both", arm="chain", prompt_tokens=0, completion_tokens=0, latency_s=2.0))
    rows += [call(f"step{x}", agent=x, parent="chain", step=x, session="s-chain") for x in "ab"]
    held = lake(tmp_path, rows)
    days, months = traffic(held, START, END)[0], month(held)
    assert set(days) == set(months) == {"a", "b", "both"} and days["both"].answered_locally == 0
    for name, found in days.items():
        assert rounded(found) == rounded(as_a_day(months[name])), name
    for name in "ab":
        assert found_share(days[name]) == pytest.approx(months[name].traffic.total("local") / answers(months[name]))
        assert days[name].failed > 0 and days[name].fallbacks > 0 and days[name].shadow_usd > 0


def found_share(t: Traffic) -> float:
    return t.answered_locally / t.answered


def answers(of: Scope) -> float:
    return of.traffic.total("answered")


def test_an_outcome_is_the_latest_word_of_each_judge_and_imported_ones_are_nobodys(tmp_path: Path) -> None:
    def said(of: str, score: float, at: float, source: str = "client") -> Feedback:
        told = f"{of}-{source}-{at}"
        return Feedback(id=told, at=at, interaction=of, agent="a", kind="outcome", score=score, source=source)

    rows: list[Any] = [call("x"), call("y", reason="imported from langfuse")]
    rows += [said("x", 0.0, START + 70), said("x", 1.0, START + 90), said("x", 0.5, START + 80, "grader")]
    rows += [said("y", 0.0, START + 70)]
    o = traffic(lake(tmp_path, rows), START, END)[1]["a", "base"]
    assert (o.scored, o.sessions, o.mean) == (1, 1, 0.75)
