"""Every rule can fail, is named with its rows, and stops training only where it is critical."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pandas as pd
import pytest

from pawl.errors import DataRejected
from pawl.validation import great_expectations_suite as suites
from pawl.validation.rules import DATASET, FEEDBACK, INTERACTIONS

INTERACTION: dict[str, Any] = {
    "agent": "a", "session": "s", "role": "answer", "arm_kind": "local", "cost_usd": 0.0, "prompt_tokens": 3,
    "latency_s": 0.1, "status": 200, "completion": "{}",
}  # fmt: skip
FEEDBACK_ROW: dict[str, Any] = {"interaction": "r0", "kind": "outcome", "score": 1.0}
EXAMPLE: dict[str, Any] = {"quality": 1.0, "source": "svc", "completion": '{"a":1}'}


def frame(row: dict[str, Any], n: int = 4, **changed: Any) -> pd.DataFrame:
    """n good rows r0, r1, ...; in the last one `changed` holds."""
    rows = [{"id": f"r{i}", **row} for i in range(n)]
    rows[-1].update(changed)
    return pd.DataFrame(rows)


def test_good_frames_pass_every_rule() -> None:
    ids = {f"r{i}" for i in range(4)}
    reports = (
        suites.validate_interactions(frame(INTERACTION)),
        suites.validate_feedback(frame(FEEDBACK_ROW), ids),
        suites.validate_dataset(frame(EXAMPLE)),
    )
    assert [(r.suite, r.rows, r.rules, r.failures) for r in reports] == [
        ("interactions", 4, len(INTERACTIONS), ()),
        ("feedback", 4, len(FEEDBACK), ()),
        ("dataset", 4, len(DATASET), ()),
    ]
    for report in reports:
        report.demand()


@pytest.mark.parametrize(
    ("changed", "column"),
    [
        ({"id": "r0"}, "id"),
        ({"agent": None}, "agent"),
        ({"session": None}, "session"),
        ({"role": "spy"}, "role"),
        ({"arm_kind": "moon"}, "arm_kind"),
        ({"cost_usd": -0.1}, "cost_usd"),
        ({"prompt_tokens": -1}, "prompt_tokens"),
        ({"latency_s": -1.0}, "latency_s"),
        ({"status": 600}, "status"),
    ],
)
def test_bad_interactions_are_rejected_with_their_row(changed: dict[str, Any], column: str) -> None:
    report = suites.validate_interactions(frame(INTERACTION, **changed))
    (failure,) = report.failures
    assert f"({column})" in failure.rule and failure.severity == "critical" and failure.unexpected >= 1
    assert changed.get("id", "r3") in failure.rows
    with pytest.raises(DataRejected, match=rf"{column}.*{failure.rows[0]}"):
        report.demand()


def test_a_very_long_completion_warns_only() -> None:
    report = suites.validate_interactions(frame(INTERACTION, completion="x" * 70_000))
    assert [f.severity for f in report.failures] == ["warning"] and report.failures[0].rows == ("r3",)
    report.demand()


def test_feedback_about_unknown_interactions_warns_and_bad_scores_are_rejected() -> None:
    report = suites.validate_feedback(frame(FEEDBACK_ROW, interaction="gone"), {"r0"})
    assert [(f.severity, f.rows) for f in report.failures] == [("warning", ("r3",))]
    report.demand()
    for changed in ({"score": 1.5}, {"score": -0.1}, {"kind": "gossip"}, {"interaction": None}):
        with pytest.raises(DataRejected, match=next(iter(changed))):
            suites.validate_feedback(frame(FEEDBACK_ROW, **changed), {"r0"}).demand()


def test_a_score_may_be_missing() -> None:
    suites.validate_feedback(frame(FEEDBACK_ROW, score=None), {"r0"}).demand()


@pytest.mark.parametrize(
    "changed", [{"quality": 1.1}, {"source": None}, {"completion": ""}, {"completion": "x" * 66_000}]
)
def test_bad_examples_are_rejected(changed: dict[str, Any]) -> None:
    with pytest.raises(DataRejected, match=f"{next(iter(changed))}.*r3"):
        suites.validate_dataset(frame(EXAMPLE, **changed)).demand()


def test_a_completion_that_is_not_json_warns() -> None:
    report = suites.validate_dataset(frame(EXAMPLE, completion="no json"))
    assert [(f.severity, f.rows) for f in report.failures] == [("warning", ("r3",))]


def test_empty_frames_and_missing_columns_are_rejected() -> None:
    for report in (
        suites.validate_interactions(pd.DataFrame([])),
        suites.validate_feedback(pd.DataFrame([]), set()),
        suites.validate_dataset(pd.DataFrame([])),
    ):
        with pytest.raises(DataRejected, match="row_count"):
            report.demand()
    with pytest.raises(DataRejected, match=r"quality.*column is missing"):
        suites.validate_dataset(frame(EXAMPLE).drop(columns="quality")).demand()


def test_nothing_is_reported_to_anybody() -> None:
    """The interpreter's own audit trail sees no name looked up and no connection tried."""
    code = """
import sys
seen = []
outward = ("socket.connect", "socket.getaddrinfo", "socket.sendto")
sys.addaudithook(lambda event, _: seen.append(event) if event in outward else None)
import pandas as pd
from pawl.validation.great_expectations_suite import validate_dataset
row = {"id": "r", "quality": 2.0, "source": "s", "completion": "{}"}
assert validate_dataset(pd.DataFrame([row])).failures
import atexit
atexit._run_exitfuncs()
print(seen)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip().splitlines()[-1] == "[]"
