"""The task `performance-analyzer`: windows, status, lead time, the queue, and where series come from."""

from __future__ import annotations

import json
import math
import os
import random
import statistics
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pawl.errors import SourceError
from pawl.fleet.source import TaskSourceSpec
from pawl.qe.performance_analyzer import oracle, prompt, simulated_source
from pawl.qe.performance_analyzer.queueing import METRICS, STEP_S, Service, Step, simulate
from pawl.qe.performance_analyzer.task import PerformanceAnalyzer

task = PerformanceAnalyzer()
ASKED = prompt.messages("my shop", "10 s", {"latency_ms": [0.1, 12.345, 2], "cpu_pct": [3, 50, 99.6]})


def issue(first: int, last: int, kind: str = "overload", metric: str = "latency_ms") -> dict[str, Any]:
    return {"metric": metric, "from": first, "to": last, "kind": kind}


def answer(status: str, *issues: dict[str, Any]) -> str:
    return json.dumps({"status": status, "issues": issues, "recommendations": ["look"]})


def test_a_prompt_is_a_table_that_can_be_read_again() -> None:
    assert ASKED[1]["content"].split("\n")[2:] == ["i latency_ms cpu_pct", "0 0 3", "1 12 50", "2 2 100"]
    found = prompt.parsed(ASKED)
    assert found is not None and found.service == "my-shop" and found.column("cpu_pct") == [3, 50, 100]


@given(st.lists(st.floats(-1e9, 1e9, allow_subnormal=False), min_size=1, max_size=8))
def test_numbers_have_three_digits_and_lose_less_than_one_in_two_hundred(values: list[float]) -> None:
    power, shown = prompt.scaled(values)
    most = max(map(abs, values))
    assert all(abs(s) <= 999 for s in shown)
    for value, s in zip(values, shown, strict=True):
        assert math.isclose(s * 10.0**-power, value, abs_tol=max(0.5 if 10 <= most < 999.5 else 0, most / 150) + 1e-200)


KNOWN = oracle.truth("incident", [issue(10, 19)])


@pytest.mark.parametrize(
    ("known", "said", "score", "failure"),
    [
        (KNOWN, answer("incident", issue(10, 19)), 1.0, ""),
        (KNOWN, answer("incident", issue(11, 18)), 1.0, ""),
        (KNOWN, answer("incident", issue(10, 19, "leak")), 0.8, "wrong_kind"),
        (KNOWN, answer("degraded", issue(10, 19)), 0.5, "wrong_status"),
        (KNOWN, answer("incident", issue(15, 19)), 2 * 5 / 15 / 0.8, "wrong_window"),
        (KNOWN, answer("incident", issue(10, 19), issue(0, 1)), 0.5, "extra_issue"),
        (KNOWN, answer("incident", issue(0, 5)), 0.0, "missed"),
        (KNOWN, answer("incident"), 0.0, "missed"),
        (KNOWN, answer("ok"), 0.0, "missed"),
        (KNOWN, answer("fine"), 0.0, "wrong_form"),
        (oracle.truth("ok", []), answer("ok"), 1.0, ""),
        (oracle.truth("ok", []), answer("ok", issue(1, 2)), 0.0, "false_alarm"),
        (oracle.truth("ok", []), answer("degraded"), 0.0, "false_alarm"),
        (oracle.truth("", [issue(3, 8, "", "")]), answer("degraded", issue(3, 8, "leak")), 1.0, ""),
        (oracle.truth("", [issue(3, 8, "", "")]), answer("ok", issue(3, 8)), 0.5, "wrong_status"),
    ],
)
def test_issues_are_held_against_labelled_windows(known: Any, said: str, score: float, failure: str) -> None:
    grade = task.grade(ASKED, said, known)
    assert grade is not None
    assert grade.score == pytest.approx(score) and grade.problem.partition(":")[0] == failure


def test_figures_of_an_answer() -> None:
    early = task.grade(ASKED, answer("incident", issue(8, 12)), KNOWN)
    late = task.grade(ASKED, answer("incident", issue(15, 19), issue(0, 1)), KNOWN)
    calm = task.grade(ASKED, answer("ok"), oracle.truth("ok", []))
    assert early and late and calm
    assert early.metrics["lead_time"] == 1.0 and late.metrics["lead_time"] == 0.5
    assert early.metrics["metric"] == early.metrics["kind"] == 1.0
    assert late.metrics["false_alarm_free"] == 0.5 and late.metrics["overlap"] == pytest.approx(10 / 17)
    assert calm.metrics == {"status": 1.0, "false_alarm_free": 1.0} and calm.label == calm.said == "ok"
    unknown = task.grade(ASKED, answer("degraded"), oracle.truth("", [issue(3, 8, "", "")]))
    assert unknown and unknown.label == unknown.said == "not_ok" and "kind" not in unknown.metrics


def test_backwards_windows_hold_nothing() -> None:
    grade = task.grade(ASKED, answer("incident", issue(19, 10)), KNOWN)
    assert grade is not None and grade.score == 0 and grade.metrics["false_alarm_free"] == 0


def test_the_queue_waits_as_erlang_says() -> None:
    # M/M/1 at 70 %: time in system is exponential with rate mu - lambda, its 95th percentile -ln(0.05)/(mu - lambda).
    service = Service(rate=0.7 / 0.02, workers=1, service_s=0.02, memory=0.4)
    made = simulate(service, [Step(failing=0.0)] * 200, random.Random(3))
    assert set(made) == set(METRICS) and {len(v) for v in made.values()} == {200}
    assert statistics.mean(made["cpu_pct"]) == pytest.approx(70, abs=2)
    assert statistics.mean(made["rps"]) == pytest.approx(35, rel=0.03)
    # The deadline of 12 service times cuts the tail a little.
    assert statistics.mean(made["latency_ms"]) == pytest.approx(1000 * 2.996 / (50 - 35), rel=0.2)


def test_what_goes_wrong_shows_where_it_should() -> None:
    service = Service(rate=8, workers=4, service_s=0.25, memory=0.4)

    def mean(metric: str, **change: Any) -> float:
        made = simulate(service, [Step(**change)] * 40, random.Random(5))[metric]
        return statistics.mean(made)

    assert mean("rps", load=2.0) > 1.8 * mean("rps")
    assert mean("latency_ms", lost=2) > 1.5 * mean("latency_ms") and mean("cpu_pct", lost=2) < 60
    assert mean("latency_ms", slow=2.0) > 1.8 * mean("latency_ms") and mean("cpu_pct", slow=2.0) > 75
    assert mean("errors_pct", failing=0.3) == pytest.approx(30, abs=3)
    assert mean("latency_ms", leaked=0.55) > 1.5 * mean("latency_ms") and mean("memory_pct", leaked=0.55) > 90
    assert STEP_S * 40 * 8 > 3000  # requests: the figures above are no luck


def test_simulated_runs_are_half_ok_and_their_windows_can_be_seen() -> None:
    items = simulated_source.items()
    assert all(i.source.startswith("simulated-") and i.id.startswith("simulated-") for i in items)
    assert {i.scenario for i in items} == {"ok", *prompt.KINDS} - {"anomaly"}
    assert sum(i.scenario == "ok" for i in items) == len(items) / 2
    for i in items:
        found = prompt.parsed(i.messages)
        assert found is not None and len(found.values) == simulated_source.POINTS
        for w in i.truth["issues"]:
            inside = found.column(w["metric"])[w["from"] : w["to"] + 1]
            outside = found.column(w["metric"])[: w["from"]]
            assert statistics.mean(inside) > statistics.mean(outside), i.id


def test_simulated_runs_are_known_again() -> None:
    item = simulated_source.of_service("simulated-chess")[0]
    assert task.cluster_key(item.messages, answer("ok")) == "missed"
    assert task.grade(ASKED, answer("ok")) is None and task.cluster_key(ASKED, answer("ok")) == ""
    assert task.scenario_of(ASKED, answer("ok")) == "ok"
    assert task.scenario_of(ASKED, answer("incident", issue(1, 2))) == "overload"


def rows(path: Path, found: list[dict[str, Any]]) -> TaskSourceSpec:
    path.write_text("\n".join(json.dumps(r) for r in found))
    return TaskSourceSpec(kind="jsonl", location=str(path))


def reading(n: int, **more: Any) -> dict[str, Any]:
    return {"series": "a b", "timestamp": f"t{n}", "value": n % 7, "anomaly": 0} | more


def test_series_of_ones_own_are_cut_into_windows(tmp_path: Path) -> None:
    found = [reading(n, anomaly=int(20 <= n < 30), status="incident", kind="leak") for n in range(64)]
    first, second, third = task.items(rows(tmp_path / "p.jsonl", found))
    assert {i.source for i in (first, second, third)} == {"a-b"}
    assert first.truth == oracle.truth("incident", [issue(20, 29, "leak", "")]) and first.scenario == "leak"
    assert second.truth["issues"] == [issue(4, 13, "leak", "")] and third.truth == oracle.truth("ok", [])


def test_long_windows_are_seen_from_further_away(tmp_path: Path) -> None:
    found = [reading(n, anomaly=int(100 <= n < 140)) for n in range(400)]
    item = task.items(rows(tmp_path / "p.jsonl", found))[0]
    asked = prompt.parsed(item.messages)
    assert asked is not None and asked.metrics == ("value_mean", "value_peak") and len(asked.values) == 32
    assert item.truth == oracle.truth("", [issue(25, 31, "", "")])


def test_several_metrics_stand_side_by_side(tmp_path: Path) -> None:
    found = [reading(n, metric=m) for n in range(40) for m in ("cpu", "latency", "errors")]
    asked = prompt.parsed(task.items(rows(tmp_path / "p.jsonl", found))[0].messages)
    assert asked is not None and asked.metrics == ("cpu", "latency", "errors") and len(asked.values) == 24


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"value": "high"}, "line 3: field `value`"),
        ({"anomaly": 2}, "line 3: field `anomaly`"),
        ({"kind": "magic"}, "line 3: field `kind`"),
        ({"status": "ok"}, "line 3: field `status`"),
        ({"metric": "other"}, "needs each of"),
    ],
)
def test_rows_that_lack_something_are_told(tmp_path: Path, change: dict[str, Any], told: str) -> None:
    found = [reading(n) for n in range(40)]
    found[2] |= change
    with pytest.raises(SourceError, match=told):
        task.items(rows(tmp_path / "p.jsonl", found))


def test_a_short_series_is_told(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="no series has 32 points"):
        task.items(rows(tmp_path / "p.jsonl", [reading(n) for n in range(31)]))


def test_real_series_give_ok_and_labelled_windows() -> None:
    folder = os.environ.get("PAWL_DATA_DIR")
    if not folder or not (Path(folder) / "perf_nab.jsonl.gz").exists():
        pytest.skip("PAWL_DATA_DIR names no folder with perf_nab.jsonl.gz")
    items = task.items(TaskSourceSpec(kind="jsonl", location=str(Path(folder) / "perf_nab.jsonl.gz")))
    labelled = sum(bool(i.truth["issues"]) for i in items)
    assert len({i.source for i in items}) == 13 and 0.15 < labelled / len(items) < 0.5
    assert max(len(i.messages[1]["content"]) for i in items) < 1000
