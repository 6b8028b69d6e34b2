"""Every rule can fail, is named with its rows, and stops training only where it is critical."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import msgspec
import pandas as pd
import pytest

from pawl.errors import DataRejected
from pawl.lake.manifest import Object
from pawl.validation import great_expectations_suite as suites
from pawl.validation import report as reports
from pawl.validation import rules
from pawl.validation.frames_examples import examples
from pawl.validation.report import Failure, ValidationReport
from pawl.validation.rules import DAY, Context
from pawl.validation.volume import rows_a_day

NOW = 1_795_000_000.0
INTERACTION: dict[str, Any] = {
    "at": NOW - 60, "agent": "a", "session": "s", "role": "answer", "arm_kind": "local", "endpoint": "chat",
    "status": 200, "cost_usd": 0.0, "prompt_tokens": 3, "completion_tokens": 3, "latency_s": 0.1, "prompt_chars": 20,
    "completion_chars": 2, "messages_valid": True, "repeated": False, "copies": 1, "language": None,
}  # fmt: skip
FEEDBACK_ROW: dict[str, Any] = {
    "at": NOW - 60, "interaction": "r0", "kind": "outcome", "score": 1.0, "source": "client", "known": True,
    "before": False, "merged_over": False, "good": 1.0, "repeated": False,
}  # fmt: skip
EXAMPLE: dict[str, Any] = {
    "messages": [{"role": "user", "content": "Go"}], "quality": 1.0, "source": "svc", "completion": '{"a":1}',
    "interactions": ["i"], "split": "train", "scenario": "",
}  # fmt: skip
EVERYTHING = Context(now=NOW, clock=NOW, days=1.0, history=(4, 4, 4), languages=("en",), answers="json")


def frame(row: dict[str, Any], n: int = 4, **changed: Any) -> pd.DataFrame:
    """n good rows r0, r1, ...; in the last one `changed` holds."""
    return pd.DataFrame(rows(row, n, **changed))


def rows(row: dict[str, Any], n: int = 4, **changed: Any) -> list[dict[str, Any]]:
    made = [{"id": f"r{i}", **row} for i in range(n)]
    made[-1].update(changed)
    return made


def test_good_frames_pass_every_rule() -> None:
    found = (
        suites.validate_interactions(frame(INTERACTION), EVERYTHING),
        suites.validate_feedback(frame(FEEDBACK_ROW), EVERYTHING),
        suites.validate_dataset(examples(rows(EXAMPLE)), EVERYTHING),
    )
    assert [(r.suite, r.rows, r.rules, r.failures) for r in found] == [
        ("interactions", 4, len(rules.interactions(EVERYTHING)), ()),
        ("feedback", 4, len(rules.feedback(EVERYTHING)), ()),
        ("dataset", 4, len(rules.dataset(EVERYTHING)), ()),
    ]
    for report in found:
        report.demand()


@pytest.mark.parametrize(
    ("changed", "column"),
    [
        ({"repeated": True}, "id"),
        ({"agent": None}, "agent"),
        ({"session": None}, "session"),
        ({"role": "spy"}, "role"),
        ({"arm_kind": "moon"}, "arm_kind"),
        ({"cost_usd": -0.1}, "cost_usd"),
        ({"prompt_tokens": -1}, "prompt_tokens"),
        ({"completion_tokens": -1}, "completion_tokens"),
        ({"latency_s": -1.0}, "latency_s"),
        ({"status": 600}, "status"),
        ({"messages_valid": False}, "messages"),
        ({"at": NOW + DAY}, "at"),
        ({"at": 12.0}, "at"),
    ],
)
def test_bad_interactions_are_rejected_with_their_row(changed: dict[str, Any], column: str) -> None:
    report = suites.validate_interactions(frame(INTERACTION, **changed), Context(now=NOW))
    (failure,) = report.failures
    assert column in failure.rule.split() and failure.severity == "critical" and failure.unexpected == 1
    assert failure.rows == ("r3",) and report.set_aside() == {"r3": failure.rule}
    with pytest.raises(DataRejected, match=rf"{column}.*r3.*pawl lake quarantine"):
        report.demand()


@pytest.mark.parametrize(
    ("changed", "column"),
    [
        ({"completion_chars": 70_000}, "completion_chars"),
        ({"prompt_chars": 500_000}, "prompt_chars"),
        ({"endpoint": "telepathy"}, "endpoint"),
    ],
)
def test_a_very_long_text_and_an_unknown_endpoint_warn_only(changed: dict[str, Any], column: str) -> None:
    report = suites.validate_interactions(frame(INTERACTION, **changed))
    assert [(f.severity, f.rows) for f in report.failures] == [("warning", ("r3",))]
    assert column in report.failures[0].rule and report.set_aside() == {}
    report.demand()


def test_feedback_that_does_not_fit_its_interaction_warns_and_bad_scores_are_rejected() -> None:
    for changed in ({"known": False}, {"before": True}):
        report = suites.validate_feedback(frame(FEEDBACK_ROW, **changed))
        assert [(f.severity, f.rows) for f in report.failures] == [("warning", ("r3",))]
        report.demand()
    for wrong in ({"score": 1.5}, {"score": -0.1}, {"kind": "gossip"}, {"interaction": None}):
        with pytest.raises(DataRejected, match=f"{next(iter(wrong))}.*r3"):
            suites.validate_feedback(frame(FEEDBACK_ROW, **wrong)).demand()


def test_a_score_may_be_missing() -> None:
    suites.validate_feedback(frame(FEEDBACK_ROW, score=None)).demand()


def test_feedback_may_come_after_the_windows_end_but_not_from_the_future() -> None:
    late = frame(FEEDBACK_ROW, at=NOW + DAY)
    assert suites.validate_feedback(late, Context(now=NOW, clock=NOW + 2 * DAY)).failures == ()
    with pytest.raises(DataRejected, match=r"at is a time.*r3"):
        suites.validate_feedback(late, Context(now=NOW, clock=NOW)).demand()


@pytest.mark.parametrize(
    "changed", [{"quality": 1.1}, {"source": None}, {"completion": ""}, {"completion": "x" * 66_000}, {"split": "dev"}]
)
def test_bad_examples_are_rejected(changed: dict[str, Any]) -> None:
    with pytest.raises(DataRejected, match=f"{next(iter(changed))}.*r3"):
        suites.validate_dataset(examples(rows(EXAMPLE, **changed))).demand()


def test_a_completion_that_is_not_json_warns_where_json_is_wanted() -> None:
    told = examples(rows(EXAMPLE, completion="no json"))
    report = suites.validate_dataset(told)
    assert [(f.severity, f.rows) for f in report.failures] == [("warning", ("r3",))]
    assert suites.validate_dataset(told, Context(answers="text")).failures == ()


def test_a_completion_against_the_agents_schema_is_rejected() -> None:
    told = examples(rows(EXAMPLE, completion='{"b":1}'), conforms=lambda text: '"a"' in text)
    with pytest.raises(DataRejected, match=r"schema.*r3"):
        suites.validate_dataset(told, Context(answers="schema")).demand()


def test_contaminated_and_erased_examples_are_rejected() -> None:
    with pytest.raises(DataRejected, match=r"evaluation.*r2"):
        suites.validate_dataset(examples(rows(EXAMPLE), contaminated=["r2"])).demand()
    gone = examples(rows(EXAMPLE, interactions=["erased", "i"]), interactions=["i"])
    with pytest.raises(DataRejected, match=r"in the lake.*r3"):
        suites.validate_dataset(gone).demand()
    suites.validate_dataset(examples(rows(EXAMPLE, interactions=[]), interactions=["i"])).demand()


def test_a_source_on_both_sides_is_rejected_and_sets_no_example_aside() -> None:
    mixed = [*rows(EXAMPLE, split="test"), {"id": "other", **EXAMPLE, "source": "elsewhere", "split": "test"}]
    report = suites.validate_dataset(examples(mixed))
    (failure,) = report.critical
    assert "one side" in failure.rule and failure.rows == ("r0", "r1", "r2", "r3") and report.set_aside() == {}


def test_an_id_that_comes_twice_is_rejected() -> None:
    with pytest.raises(DataRejected, match=r"twice.*1 row\(s\), e.g. r0"):
        suites.validate_dataset(examples(rows(EXAMPLE, id="r0"))).demand()


@pytest.mark.parametrize(("largest", "failures"), [(24, 0), (25, 1)])
def test_one_class_may_not_fill_the_dataset(largest: int, failures: int) -> None:
    made = rows(EXAMPLE, 40)
    for n, row in enumerate(made):
        row["scenario"] = "large" if n < largest else f"small {n}"
    report = suites.validate_dataset(examples(made))
    assert [f.severity for f in report.failures] == ["warning"] * failures
    few = [{**row, "scenario": "only"} for row in rows(EXAMPLE, 5)]
    assert suites.validate_dataset(examples(few)).failures == (), "of a handful a share says nothing"


@pytest.mark.parametrize(("good", "failures"), [(50, 0), (1, 1), (99, 1), (3, 0)])
def test_outcomes_that_are_all_alike_warn(good: int, failures: int) -> None:
    told = frame(FEEDBACK_ROW, 100)
    told["good"] = [1.0] * good + [0.0] * (100 - good)
    report = suites.validate_feedback(told)
    assert [(f.severity, "good" in f.rule) for f in report.failures] == [("warning", True)] * failures


@pytest.mark.parametrize(("alike", "failures"), [(20, 0), (21, 1)])
def test_many_copies_and_foreign_languages_warn(alike: int, failures: int) -> None:
    told = frame(INTERACTION, 100)
    told["copies"] = [alike] * alike + [1] * (100 - alike)
    (failed,) = suites.validate_interactions(told).failures or (None,)
    assert (failed is not None) == bool(failures)
    if failed:
        assert failed.severity == "warning" and failed.unexpected == alike and "copies" in failed.rule
    told = frame(INTERACTION, 200)
    told["language"] = ["de"] * (alike // 2 + failures) + ["en"] * (90 - failures) + [None] * (110 - alike // 2)
    spoken = suites.validate_interactions(told, Context(languages=("en", "fr"))).failures
    assert [f.severity for f in spoken] == ["warning"] * failures


@pytest.mark.parametrize(
    ("amount", "days", "fails"),
    [(50, 1.0, False), (49, 1.0, True), (300, 1.0, False), (301, 1.0, True), (350, 7.0, False)],
)
def test_the_volume_is_compared_with_the_days_before(amount: int, days: float, fails: bool) -> None:
    context = Context(history=(90, 100, 5000), days=days)
    report = suites.validate_interactions(frame(INTERACTION, amount), context)
    assert [(f.severity, f.observed, f.rows) for f in report.failures] == (
        [("warning", f"observed {amount}", ())] if fails else []
    )
    report.demand()


def test_a_stale_window_warns_with_the_newest_time() -> None:
    context = Context(now=NOW + 4 * DAY)
    (failure,) = suites.validate_interactions(frame(INTERACTION), context).failures
    assert (
        failure.severity == "warning"
        and "newest" in failure.rule
        and failure.observed == "observed 2026-11-18T11:05+00:00"
    )


def test_what_is_not_known_of_a_context_is_not_judged() -> None:
    quiet = {r.words for r in rules.interactions(Context())}
    assert not any("usual" in w or "newest" in w or "2020" in w or "language" in w for w in quiet)
    assert not any("usual" in r.words for r in rules.interactions(Context(history=(0, 0), days=1.0)))


def test_empty_frames_and_missing_columns_are_rejected() -> None:
    for report in (
        suites.validate_interactions(pd.DataFrame([])),
        suites.validate_feedback(pd.DataFrame([])),
        suites.validate_dataset(examples([])),
    ):
        assert len(report.failures) == 1
        with pytest.raises(DataRejected, match="at least one row"):
            report.demand()
    with pytest.raises(DataRejected, match=r"column quality is missing"):
        suites.validate_dataset(examples(rows(EXAMPLE)).drop(columns="quality")).demand()
    assert suites.validate_interactions(frame(INTERACTION).drop(columns="endpoint")).critical == ()


def test_every_row_is_named_by_its_id_whatever_the_frames_labels_are() -> None:
    told = frame(INTERACTION, 5_000)
    told["status"] = 700
    report = suites.validate_interactions(told)
    assert [(f.unexpected, len(f.rows)) for f in report.failures] == [(5_000, 5_000)]
    assert report.failures[0].rows[-1] == "r4999"
    told.index = pd.Index(range(70_000, 75_000))  # rows were taken out before: places are not labels
    assert suites.validate_interactions(told).failures[0].rows[-1] == "r4999"


def test_a_rule_that_cannot_be_asked_is_a_failure_and_no_error() -> None:
    odd = rules.rule("source is large", "column_values_to_be_between", column="source", min_value=1)
    (failure,) = suites.validate("dataset", examples(rows(EXAMPLE)), [odd]).failures
    assert failure.severity == "critical" and "could not be checked" in failure.observed


def test_a_broken_source_sets_nothing_aside() -> None:
    def report(unexpected: int, of: int) -> ValidationReport:
        named = tuple(f"r{n}" for n in range(unexpected))
        return ValidationReport("interactions", of, 1, (Failure("status", "critical", unexpected, named),))

    assert len(report(1, 1).set_aside()) == 1
    assert len(report(reports.FEW, reports.FEW).set_aside()) == reports.FEW
    assert len(report(500, 1000).set_aside()) == 500
    remnant = report(501, 1000)
    assert remnant.set_aside() == {}
    with pytest.raises(DataRejected) as said:
        remnant.demand()
    assert "quarantine" not in str(said.value) and "501 row(s), e.g. r0, r1, r2, r3, r4, ..." in str(said.value)


def test_a_row_is_set_aside_for_the_first_rule_that_it_breaks() -> None:
    told = frame(INTERACTION, status=700, cost_usd=-1.0)
    report = suites.validate_interactions(told)
    assert len(report.critical) == 2 and list(report.set_aside()) == ["r3"]
    assert msgspec.json.decode(msgspec.json.encode(report), type=ValidationReport) == report


def test_rows_a_day_come_from_the_manifest() -> None:
    def made(day: int, count: int, agent: str = "a", table: str = "interactions") -> Object:
        begin = 20_000 * DAY + day * DAY
        return Object(f"{table}/{agent}/{day}-{count}", table, agent, count, begin + 5, begin + DAY - 5)

    held = [
        made(0, 9),
        made(1, 10),
        made(3, 30),
        made(3, 5),
        made(1, 99, "b"),
        made(1, 99, table="feedback"),
        made(4, 7),
    ]
    assert rows_a_day(held, "interactions", "a", 20_004 * DAY + 1) == (10, 0, 35)
    assert rows_a_day(held, "interactions", "a", 20_004 * DAY + 1, most=2) == (0, 35)
    assert rows_a_day(held, "interactions", "nobody", 20_004 * DAY) == ()
    assert rows_a_day(held, "interactions", "a", 20_000 * DAY) == ()
    assert rows_a_day(held, "interactions", "a", 20_006 * DAY) == (10, 0, 35, 7, 0)


def test_nothing_is_reported_to_anybody() -> None:
    """The interpreter's own audit trail sees no name looked up and no connection tried."""
    code = """
import sys, tempfile, pathlib
seen = []
outward = ("socket.connect", "socket.getaddrinfo", "socket.sendto")
sys.addaudithook(lambda event, _: seen.append(event) if event in outward else None)
from pawl.validation.data_docs_great_expectations import Docs
from pawl.validation.frames_examples import examples
from pawl.validation.great_expectations_suite import validate_dataset
from pawl.validation.rules import Context
row = {"id": "r", "quality": 2.0, "source": "s", "completion": "{}"}
with tempfile.TemporaryDirectory() as folder:
    docs = Docs(pathlib.Path(folder), "agent", 1.8e9)
    assert validate_dataset(examples([row]), Context(), docs).failures
import atexit
atexit._run_exitfuncs()
print(seen)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip().splitlines()[-1] == "[]"
