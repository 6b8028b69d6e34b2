"""Rules as data, and the report of a check."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from pawl.errors import DataRejected

Severity = Literal["critical", "warning"]


class Rule(msgspec.Struct, frozen=True):
    """One expectation by its Great Expectations name, e.g. `expect_column_values_to_be_unique`."""

    expectation: str
    arguments: dict[str, Any]
    severity: Severity = "critical"


class Failure(msgspec.Struct, frozen=True):
    """A rule that did not hold, with some of the rows that break it."""

    rule: str
    severity: Severity
    unexpected: int
    rows: tuple[str, ...]


class ValidationReport(msgspec.Struct, frozen=True):
    """What became of one suite."""

    suite: str
    rows: int
    rules: int
    failures: tuple[Failure, ...]

    def demand(self) -> None:
        """DataRejected where a critical rule failed; the text names the rows."""
        critical = [f for f in self.failures if f.severity == "critical"]
        if critical:
            listed = "; ".join(
                f"{f.rule}: {f.unexpected} row(s), e.g. {', '.join(f.rows[:5]) or '-'}" for f in critical
            )
            raise DataRejected(
                f"{self.suite}: {len(critical)} of {self.rules} rules failed on {self.rows} rows: {listed}. "
                "Nothing was trained. Look at these rows with `pawl status` and the lake, mend their source, run again"
            )


def rule(expectation: str, severity: Severity = "critical", **arguments: Any) -> Rule:
    """Short form of a rule."""
    return Rule(f"expect_{expectation}", arguments, severity)


_ID = (
    rule("column_values_to_not_be_null", column="id"),
    rule("column_values_to_be_unique", column="id"),
)

INTERACTIONS = (
    rule("table_row_count_to_be_between", min_value=1),
    *_ID,
    rule("column_values_to_not_be_null", column="agent"),
    rule("column_values_to_not_be_null", column="session"),
    rule("column_values_to_be_in_set", column="role", value_set=["answer", "shadow"]),
    rule("column_values_to_be_in_set", column="arm_kind", value_set=["local", "cloud"]),
    rule("column_values_to_be_between", column="cost_usd", min_value=0),
    rule("column_values_to_be_between", column="prompt_tokens", min_value=0),
    rule("column_values_to_be_between", column="latency_s", min_value=0),
    rule("column_values_to_be_between", column="status", min_value=0, max_value=599),
    rule("column_value_lengths_to_be_between", "warning", column="completion", max_value=65536),
)

FEEDBACK = (
    rule("table_row_count_to_be_between", min_value=1),
    *_ID,
    rule("column_values_to_not_be_null", column="interaction"),
    rule("column_values_to_be_in_set", column="kind", value_set=["outcome", "rating", "accepted", "correction"]),
    rule("column_values_to_be_between", column="score", min_value=0, max_value=1),
    # Feedback may be about an interaction before the window; much of it points to a broken source.
    rule("column_values_to_be_in_set", "warning", column="known", value_set=[True]),
)

DATASET = (
    rule("table_row_count_to_be_between", min_value=1),
    *_ID,
    rule("column_values_to_be_between", column="quality", min_value=0, max_value=1),
    rule("column_values_to_not_be_null", column="source"),
    rule("column_value_lengths_to_be_between", column="completion", min_value=2, max_value=65536),
    rule("column_values_to_be_json_parseable", "warning", column="completion"),
)
