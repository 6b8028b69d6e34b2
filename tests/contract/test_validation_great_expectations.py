"""The rules, run by the real Great Expectations."""

from __future__ import annotations

import pandas as pd
import pytest

from pawl.errors import DataRejected
from pawl.validation import great_expectations_suite as suites

FEEDBACK = {"id": "f1", "interaction": "i1", "kind": "outcome", "score": 0.5}
EXAMPLE = {"id": "e1", "quality": 1.0, "source": "s", "completion": "{}", "messages": [{"role": "user"}]}


def test_good_feedback_passes() -> None:
    suites.validate_feedback(pd.DataFrame([FEEDBACK, {**FEEDBACK, "id": "f2", "score": None}]), {"i1"}).demand()


def test_bad_rows_are_named() -> None:
    rows = [FEEDBACK, {**FEEDBACK, "id": "f-odd", "score": 1.5}, {**FEEDBACK, "id": "f3", "kind": "gossip"}]
    with pytest.raises(DataRejected, match="f-odd") as caught:
        suites.validate_feedback(pd.DataFrame(rows), {"i1"}).demand()
    assert "f3" in str(caught.value)


def test_feedback_about_strangers_is_a_warning() -> None:
    report = suites.validate_feedback(pd.DataFrame([{**FEEDBACK, "interaction": "i9"}]), {"i1"})
    report.demand()
    assert [(f.severity, f.rows) for f in report.failures] == [("warning", ("f1",))]


def test_an_empty_window_and_a_missing_column_are_critical() -> None:
    with pytest.raises(DataRejected, match="row_count"):
        suites.validate_feedback(pd.DataFrame([]), set()).demand()
    with pytest.raises(DataRejected, match="quality"):
        suites.validate_dataset(pd.DataFrame([{k: v for k, v in EXAMPLE.items() if k != "quality"}])).demand()


def test_a_dataset_with_twins_is_rejected() -> None:
    suites.validate_dataset(pd.DataFrame([EXAMPLE])).demand()
    with pytest.raises(DataRejected, match="unique"):
        suites.validate_dataset(pd.DataFrame([EXAMPLE, EXAMPLE])).demand()
