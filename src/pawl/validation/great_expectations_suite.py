"""Runs rules through Great Expectations on pandas frames."""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any

from pawl.validation.rules import DATASET, FEEDBACK, INTERACTIONS, Failure, Rule, ValidationReport

if TYPE_CHECKING:
    import pandas as pd

# Read at import: no usage is reported to anybody, and no bars are drawn into a worker's log.
os.environ.setdefault("GX_ANALYTICS_ENABLED", "false")
os.environ.setdefault("TQDM_DISABLE", "1")


def validate_interactions(frame: pd.DataFrame) -> ValidationReport:
    """One row an interaction, columns as in `pawl.lake.records.Interaction`."""
    return _run("interactions", frame, INTERACTIONS)


def validate_feedback(frame: pd.DataFrame, interaction_ids: Collection[str]) -> ValidationReport:
    """One row a feedback; `interaction_ids` are those of the window, for the referential join."""
    if len(frame):
        frame = frame.assign(known=frame["interaction"].isin(set(interaction_ids)))
    return _run("feedback", frame, FEEDBACK)


def validate_dataset(frame: pd.DataFrame) -> ValidationReport:
    """One row an example."""
    return _run("dataset", frame, DATASET)


def _run(suite: str, frame: pd.DataFrame, rules: Sequence[Rule]) -> ValidationReport:
    import logging

    logging.getLogger("great_expectations").setLevel(logging.ERROR)
    import great_expectations as gx

    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = {"globally": False}
    usable = [r for r in rules if "column" not in r.arguments or r.arguments["column"] in frame.columns]
    # A column that is missing altogether fails every row, before anything is asked of it.
    absent = [
        Failure(f"{r.expectation}({r.arguments['column']})", r.severity, len(frame), ("column is missing",))
        for r in rules
        if len(frame) and r not in usable
    ]
    if not len(frame):
        usable = [r for r in rules if r.expectation == "expect_table_row_count_to_be_between"]
    expectations = [_expectation(gx, r) for r in usable]
    batch = (
        context.data_sources.add_pandas("frames")
        .add_dataframe_asset(suite)
        .add_batch_definition_whole_dataframe("whole")
        .get_batch(batch_parameters={"dataframe": frame})
    )
    checked = batch.validate(
        gx.ExpectationSuite(name=suite, expectations=expectations),
        result_format={
            "result_format": "COMPLETE",
            **({"unexpected_index_column_names": ["id"]} if "id" in frame.columns else {}),
        },
    )
    failures = [
        _failure(rule, result)
        for result in checked.results
        if not result.success
        for rule in [usable[_position(result, usable)]]
    ]
    return ValidationReport(suite, len(frame), len(rules), (*absent, *failures))


def _expectation(gx: Any, rule: Rule) -> Any:
    name = "".join(part.capitalize() for part in rule.expectation.split("_"))
    return getattr(gx.expectations, name)(**rule.arguments)


def _position(result: Any, rules: Sequence[Rule]) -> int:
    """Which rule a result is of: results come sorted by column, not in the order that was given."""
    config = result.expectation_config
    for n, r in enumerate(rules):
        if config.type == r.expectation and config.kwargs.get("column") == r.arguments.get("column"):
            return n
    raise LookupError(config.type)


def _failure(rule: Rule, result: Any) -> Failure:
    found = result.result or {}
    index = found.get("unexpected_index_list") or []
    rows = tuple(str(row.get("id", row) if isinstance(row, dict) else row) for row in index[:20])
    observed = found.get("observed_value")
    if not rows and observed is not None:
        rows = (f"observed {observed}",)
    of = f"({rule.arguments['column']})" if "column" in rule.arguments else ""
    return Failure(f"{rule.expectation}{of}", rule.severity, int(found.get("unexpected_count") or 0), rows)
