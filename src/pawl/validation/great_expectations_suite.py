"""Runs rules through Great Expectations on narrow pandas frames, a million rows at a time.

Great Expectations has no native DuckDB source and copies what it is given, so that the cost lies in the width of a
frame: on a frame of texts it takes minutes and gigabytes. What needs texts, joins or groups is therefore measured in
SQL before (`frames_duckdb`), and what is asked here is one cheap expectation a column.

Two passes: the first takes all rules in one batch with result format BASIC, which keeps nothing of the rows. Only of
rules that failed, one after the other and on their column alone, is the list of rows asked for, as positions: with
`unexpected_index_column_names` the library looks every row up by itself, 20 s for a million of them, and the lists of
all rules would be held at once. At most MOST_NAMED ids a rule are kept; the count is exact.
"""

from __future__ import annotations

import datetime as dt
import os
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pawl.validation import rules as suites
from pawl.validation.report import MOST_NAMED, Failure, ValidationReport
from pawl.validation.rules import Context, Rule

if TYPE_CHECKING:
    import pandas as pd

    from pawl.validation.data_docs_great_expectations import Docs

# Read at import: no usage is reported to anybody, and no bars are drawn into a worker's log.
os.environ.setdefault("GX_ANALYTICS_ENABLED", "false")
os.environ.setdefault("TQDM_DISABLE", "1")

_SHOWN = 20  # rows a rule on its page in Data Docs


def validate_interactions(
    frame: pd.DataFrame,
    context: Context = Context(),  # noqa: B008 - frozen
    docs: Docs | None = None,
) -> ValidationReport:
    """One row an interaction, as `frames_duckdb.interactions` measures it."""
    return validate("interactions", frame, suites.interactions(context), docs)


def validate_feedback(
    frame: pd.DataFrame,
    context: Context = Context(),  # noqa: B008 - frozen
    docs: Docs | None = None,
) -> ValidationReport:
    """One row a feedback, as `frames_duckdb.feedback` measures it."""
    return validate("feedback", frame, suites.feedback(context), docs)


def validate_dataset(
    frame: pd.DataFrame,
    context: Context = Context(),  # noqa: B008 - frozen
    docs: Docs | None = None,
) -> ValidationReport:
    """One row an example, as `frames_examples.examples` makes it."""
    return validate("dataset", frame, suites.dataset(context), docs)


def validate(suite: str, frame: pd.DataFrame, rules: Sequence[Rule], docs: Docs | None = None) -> ValidationReport:
    """Ask every rule of a frame; `docs`: where a page about it is made.

    Rows are named by the frame's column `id`. A column that is missing altogether fails its rules; an empty frame is
    asked for its number of rows only. What holds too few values for a rule passes it.
    """
    began = time.perf_counter()
    frame = frame.reset_index(drop=True)
    counts = {c: int(frame[c].count()) for c in {r.column for r in rules if r.least} & set(frame.columns)}
    asked = [
        r if r.column is None or r.column in frame.columns else _existing(r)
        for r in rules
        if (len(frame) or r.column is None) and counts.get(str(r.column), r.least) >= r.least
    ]
    gx = _library()
    context = _context(gx, docs)
    result = _ask(gx, context, suite, frame, asked, "BASIC")
    failures = [
        _failure(gx, context, frame, asked[one.expectation_config.meta["rule"]], one)
        for one in result.results
        if not one.success
    ]
    failures.sort(key=lambda f: f.severity)  # critical ones first
    page = ""
    if docs is not None:
        from pawl.validation.data_docs_great_expectations import publish

        page = str(publish(context, result, suite, docs, failures))
    return ValidationReport(suite, len(frame), len(rules), tuple(failures), page, time.perf_counter() - began)


def _library() -> Any:
    import logging

    logging.getLogger("great_expectations").setLevel(logging.ERROR)
    import great_expectations

    return great_expectations


def _context(gx: Any, docs: Docs | None) -> Any:
    from pawl.validation.data_docs_great_expectations import configuration

    # The library's own choice of a configuration makes a temporary folder for pages that nobody asked for.
    context = gx.get_context(mode="ephemeral", project_config=configuration(docs))
    context.variables.progress_bars = {"globally": False}
    context.data_sources.add_pandas("frames")
    return context


def _ask(gx: Any, context: Any, suite: str, frame: pd.DataFrame, rules: Sequence[Rule], form: str) -> Any:
    asset = context.data_sources.get("frames").add_dataframe_asset(suite)
    given = _lean(frame, rules)
    batch = asset.add_batch_definition_whole_dataframe("whole").get_batch(batch_parameters={"dataframe": given})
    expectations = [_expectation(gx, r, n) for n, r in enumerate(rules)]
    return batch.validate(
        gx.ExpectationSuite(name=suite, expectations=expectations),
        result_format={"result_format": form, "return_unexpected_index_query": False},
    )


def _lean(frame: pd.DataFrame, rules: Sequence[Rule]) -> pd.DataFrame:
    """The columns that are asked about; marks instead of values where the question is only whether there is one.

    The library hashes all that it is given into a fingerprint: a million ids cost it 0.7 s and 200 MB.
    """
    asked: dict[str, set[str]] = {}
    for rule in rules:
        if rule.column in frame.columns:
            asked.setdefault(str(rule.column), set()).add(rule.expectation)
    given = frame[list(asked)] if asked else frame[[]]
    there = {c: frame[c].notna() for c, kinds in asked.items() if kinds == {"expect_column_values_to_not_be_null"}}
    return given.assign(**{c: marks.astype("float32").where(marks) for c, marks in there.items()})


def _expectation(gx: Any, rule: Rule, number: int) -> Any:
    name = "".join(part.capitalize() for part in rule.expectation.split("_"))
    # Results come sorted by column and not as given: the number finds the rule again.
    described = {"description": rule.words, "severity": rule.severity, "meta": {"rule": number}}
    return getattr(gx.expectations, name)(**rule.arguments, **described)


def _existing(rule: Rule) -> Rule:
    return Rule(rule.words, "expect_column_to_exist", {"column": rule.column}, rule.severity)


def _failure(gx: Any, context: Any, frame: pd.DataFrame, rule: Rule, result: Any) -> Failure:
    """What failed, with its rows; puts those that its page shows into the result."""
    found: dict[str, Any] = result.result or {}
    if rule.expectation == "expect_column_to_exist":
        return Failure(rule.words, rule.severity, len(frame), (), f"column {rule.column} is missing", False)
    if not found:
        said = f"could not be checked: {_error(result.exception_info)}"
        return Failure(rule.words, rule.severity, 0, (), said, False)
    if not rule.by_row:
        return Failure(rule.words, rule.severity, 0, (), f"observed {_shown(rule, found['observed_value'])}", False)
    count = int(found["unexpected_count"])
    if rule.column == "id" or "id" not in frame.columns:
        return Failure(rule.words, rule.severity, count, (), "", False)
    places = _places(gx, context, frame, rule)
    ids = frame["id"].iloc[places[:MOST_NAMED]]
    found |= _sample(frame[rule.column].iloc[places[:_SHOWN]], ids[:_SHOWN])
    rows = tuple(str(i) for i in ids[ids.notna()])
    return Failure(rule.words, rule.severity, count, rows, "", rule.sets_aside)


def _places(gx: Any, context: Any, frame: pd.DataFrame, rule: Rule) -> list[int]:
    """Positions of the rows that break a rule."""
    name = f"rows of {rule.words}"
    again = _ask(gx, context, name, frame, [rule], "COMPLETE")
    context.data_sources.get("frames").delete_asset(name)
    places: list[int] = again.results[0].result["unexpected_index_list"]
    return places


def _sample(values: pd.Series[Any], ids: pd.Series[Any]) -> dict[str, Any]:
    """The first values that break a rule and their rows, as the library's pages want them."""
    shown = [_plain(v) for v in values.tolist()]
    return {
        "partial_unexpected_list": shown,
        "partial_unexpected_counts": [{"value": v, "count": shown.count(v)} for v in dict.fromkeys(shown)],
        "unexpected_list": shown,
        "unexpected_index_list": [{values.name: v, "id": str(i)} for v, i in zip(shown, ids, strict=True)],
        "unexpected_index_column_names": ["id"],
    }


def _plain(value: Any) -> Any:
    """A value as JSON holds it."""
    return None if value is None or value != value else value


def _shown(rule: Rule, value: Any) -> str:
    if rule.column == "at" and isinstance(value, int | float):
        return dt.datetime.fromtimestamp(value, dt.UTC).isoformat(timespec="minutes")
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _error(info: Mapping[str, Any] | None) -> str:
    inner = [v for v in (info or {}).values() if isinstance(v, Mapping)] or [info or {}]
    return str(inner[0].get("exception_message") or "no result")[:300]
