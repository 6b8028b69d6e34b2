"""The task `flaky-detection`: histories, verdicts, causes, and where they come from."""

from __future__ import annotations

import ast
import json
import os
import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pawl.errors import SourceError
from pawl.fleet.source import TaskSourceSpec
from pawl.qe.flaky_detection import history, oracle, prompt, simulated_source
from pawl.qe.flaky_detection.history import Reruns, history_verdict
from pawl.qe.flaky_detection.task import FlakyDetection

task = FlakyDetection()
ASKED = prompt.messages("my shop", Reruns(20, 3), "def test_a():\n    assert f() == 1")


def answer(verdict: str = "flaky", cause: str = "time", confidence: float = 0.9) -> str:
    return json.dumps({"verdict": verdict, "cause": cause, "confidence": confidence})


def test_a_prompt_says_project_and_reruns() -> None:
    found = prompt.parsed(ASKED)
    assert found is not None
    assert found.project == "my-shop" and found.reruns == (20, 3) and found.code.startswith("def test_a")
    assert task.source_of(ASKED) == "my-shop"


@pytest.mark.parametrize(
    ("known", "said", "score", "failure"),
    [
        (oracle.truth("flaky", "time"), answer(), 1.0, ""),
        (oracle.truth("flaky", "time"), answer(cause="network"), 0.7, "wrong_cause"),
        (oracle.truth("flaky", "time"), answer("stable", "none"), 0.0, "missed"),
        (oracle.truth("flaky"), answer(cause="network"), 1.0, ""),
        (oracle.truth("stable"), answer("stable", "none"), 1.0, ""),
        (oracle.truth("stable"), answer("stable", "time"), 0.7, "stable_with_cause"),
        (oracle.truth("stable"), answer(), 0.0, "false_alarm"),
        (oracle.truth("stable"), "flaky", 0.0, "not_json"),
        (oracle.truth("stable"), f"I think {answer()}", 0.0, "prose_around_json"),
        (oracle.truth("stable"), '{"verdict":"flaky"}', 0.0, "wrong_form"),
        (oracle.truth("stable"), answer(confidence=1.2), 0.0, "wrong_form"),
    ],
)
def test_a_verdict_is_held_against_what_many_reruns_found(known: Any, said: str, score: float, failure: str) -> None:
    grade = task.grade(ASKED, said, known)
    assert grade is not None
    assert grade.score == score and grade.problem.partition(":")[0] == failure
    assert grade.label == known["verdict"]
    assert ("cause" in grade.metrics) == (known == oracle.truth("flaky", "time"))


def test_confidence_is_measured_beside_the_score() -> None:
    sure = task.grade(ASKED, answer(confidence=1.0), oracle.truth("flaky"))
    even = task.grade(ASKED, answer(confidence=0.5), oracle.truth("flaky"))
    wrong = task.grade(ASKED, answer(confidence=1.0), oracle.truth("stable"))
    assert sure and even and wrong
    assert (sure.metrics["calibration"], even.metrics["calibration"], wrong.metrics["calibration"]) == (1.0, 0.75, 0.0)
    assert sure.score == even.score == 1.0 and even.confidence == 0.5 and wrong.said == "flaky"


def test_without_a_truth_only_the_form_is_known() -> None:
    assert task.grade(ASKED, answer()) is None
    assert task.cluster_key(ASKED, answer()) == "" and task.cluster_key(ASKED, "no") == "not_json"
    assert task.scenario_of(ASKED, answer()) == "time" and task.scenario_of(ASKED, answer("stable", "none")) == "stable"


def test_simulated_tests_are_known_again() -> None:
    item = next(i for i in simulated_source.items() if i.truth["verdict"] == "flaky")
    said = answer("flaky", item.truth["cause"])
    grade = task.grade(item.messages, said)
    assert grade is not None and grade.score == 1.0
    assert task.cluster_key(item.messages, answer("stable", "none")) == "missed"


def test_history_alone_says_flaky_exactly_where_results_differ() -> None:
    assert history_verdict(Reruns(20, 1))[0] == "flaky" == history_verdict(Reruns(20, 19))[0]
    assert history_verdict(Reruns(20, 0))[0] == "stable" == history_verdict(Reruns(20, 20))[0]
    assert history_verdict(Reruns(20, 0))[1] < history_verdict(Reruns(50, 0))[1] < 1


@given(st.floats(0, 1), st.text(max_size=8))
def test_a_sample_is_of_the_rate_and_the_same_for_a_key(rate: float, key: str) -> None:
    seen = history.sample(rate, key)
    assert seen == history.sample(rate, key) and seen.runs in history.SAMPLES and 0 <= seen.failed <= seen.runs
    assert history.sample(0.0, key).failed == 0 and history.sample(1.0, key).failed == history.sample(1.0, key).runs


def test_samples_have_the_rate_on_average() -> None:
    drawn = [history.sample(0.2, str(n)) for n in range(2000)]
    assert abs(sum(s.failed for s in drawn) / sum(s.runs for s in drawn) - 0.2) < 0.01


def test_simulated_tests_are_python_and_of_every_cause() -> None:
    items = simulated_source.items()
    assert {i.scenario for i in items} == {"stable", *prompt.CAUSES}
    assert all(i.source.startswith("simulated-") and i.id.startswith("simulated-") for i in items)
    for i in items:
        found = prompt.parsed(i.messages)
        assert found is not None
        (made,) = ast.parse(found.code).body
        assert isinstance(made, ast.FunctionDef | ast.AsyncFunctionDef) and made.name.startswith("test_")


def test_history_beats_the_majority_on_simulated_tests_and_does_not_say_all() -> None:
    items = simulated_source.items()
    right = sum(history_verdict(prompt.parsed(i.messages).reruns)[0] == i.truth["verdict"] for i in items)  # type: ignore[union-attr]
    stable = sum(i.truth["verdict"] == "stable" for i in items)
    assert stable / len(items) < 0.6 and 0.8 < right / len(items) < 0.98


def rows(path: Path, *found: dict[str, Any]) -> TaskSourceSpec:
    path.write_text("\n".join(json.dumps(r) for r in found))
    return TaskSourceSpec(kind="jsonl", location=str(path))


ROW = {"project": "a b", "test_name": "t1", "code": "void t1(){}", "label": "flaky"} | {
    "failing_runs": "9",
    "total_runs": "10000",
}


def test_rows_of_ones_own(tmp_path: Path) -> None:
    stable = ROW | {"test_name": "t2", "label": "non-flaky", "failing_runs": 0, "total_runs": 50}
    known = ROW | {"test_name": "t3", "cause": "time"}
    order = ROW | {"test_name": "t4", "idoft_category": "OD-Vic"}
    unmeasured = ROW | {"test_name": "t5", "failing_runs": "", "total_runs": ""}
    found = task.items(rows(tmp_path / "f.jsonl", known, ROW, stable, order, unmeasured))
    assert [(i.id, i.source, i.scenario) for i in found] == [
        ("a-b/t1", "a-b", "flaky"),
        ("a-b/t2", "a-b", "stable"),
        ("a-b/t3", "a-b", "time"),
        ("a-b/t4", "a-b", "order_dependence"),
    ]
    said = task.reference(found[0], random.Random(1))
    assert said is not None and json.loads(said)["cause"] == "unknown"


@pytest.mark.parametrize(
    ("row", "told"),
    [
        (ROW | {"code": None}, "line 1: field `code`"),
        (ROW | {"failing_runs": 11, "total_runs": 10}, "line 1: failing_runs 11 is more"),
        (ROW | {"cause": "magic"}, "line 1: field `cause`"),
        (ROW | {"failing_runs": ""}, "no row has failing_runs"),
    ],
)
def test_rows_that_lack_something_are_told(tmp_path: Path, row: dict[str, Any], told: str) -> None:
    with pytest.raises(SourceError, match=told):
        task.items(rows(tmp_path / "f.jsonl", row))


def test_real_tests_cannot_all_be_told_by_their_history() -> None:
    folder = os.environ.get("PAWL_DATA_DIR")
    if not folder or not (Path(folder) / "flaky.jsonl.gz").exists():
        pytest.skip("PAWL_DATA_DIR names no folder with flaky.jsonl.gz")
    items = task.items(TaskSourceSpec(kind="jsonl", location=str(Path(folder) / "flaky.jsonl.gz")))
    flaky = [i for i in items if i.truth["verdict"] == "flaky"]
    seen = [history_verdict(prompt.parsed(i.messages).reruns)[0] for i in flaky]  # type: ignore[union-attr]
    assert len(items) > 2000 and 0.3 < seen.count("flaky") / len(flaky) < 0.6
    assert max(len(i.messages[1]["content"]) for i in items) < 1800
