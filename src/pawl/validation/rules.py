"""Rules as data: what must hold of the interactions, the feedback and the examples that a model is made from.

A rule is an expectation by its Great Expectations name over one column of a narrow frame (`frames_duckdb`,
`frames_examples`); whatever needs more than a column (joins, duplicates, JSON) is a column that was measured before.
Critical ones stop the run and name their rows; warnings are shown.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any, Literal, get_args, get_type_hints

import msgspec

from pawl.lake.records import ArmKind, FeedbackKind, Interaction
from pawl.validation.report import Severity

DAY = 86_400.0
LONGEST_PROMPT = 400_000  # characters
LONGEST_COMPLETION = 65_536
EPOCH = 1_577_836_800.0  # 2020: before it there was nothing to record
CLOCKS = 300.0  # seconds that two machines' clocks may differ
FEW = 20  # below so many values a share says nothing
ROLES = get_args(get_type_hints(Interaction)["role"])


class Rule(msgspec.Struct, frozen=True):
    """One expectation, e.g. `expect_column_values_to_be_in_set`, and what it says in words."""

    words: str
    expectation: str
    arguments: dict[str, Any]
    severity: Severity = "critical"
    least: int = 0  # asked only where its column has so many values
    sets_aside: bool = True  # what breaks it can be left out; never so for a rule about the whole table

    @property
    def column(self) -> str | None:
        """The column it is about."""
        return self.arguments.get("column")

    @property
    def by_row(self) -> bool:
        """It is about each row, so that it can name those that break it."""
        return self.expectation.startswith(("expect_column_values_", "expect_column_value_lengths_"))


class Context(msgspec.Struct, frozen=True, kw_only=True):
    """What rules depend on besides the rows. What is left out is not judged."""

    now: float | None = None  # the window's end, or the present (epoch seconds)
    clock: float | None = None  # the present; for feedback, which may come after the window's end
    days: float | None = None  # the window's length
    history: Sequence[int] = ()  # rows a day on the days before the window, oldest first (`volume.rows_a_day`)
    volume: tuple[float, float] = (0.5, 3.0)  # rows a day, relative to the history's median
    stale_days: float = 3.0
    languages: tuple[str, ...] = ()  # ISO 639-1
    foreign_share: float = 0.1
    copied_share: float = 0.2
    good_share: tuple[float, float] = (0.02, 0.98)
    max_class_share: float = 0.6
    answers: Literal["schema", "json", "text"] = "json"  # what `completion_valid` was measured against


def rule(words: str, expectation: str, severity: Severity = "critical", **arguments: Any) -> Rule:
    """Short form of a rule."""
    return Rule(words, f"expect_{expectation}", arguments, severity)


def interactions(context: Context = Context()) -> tuple[Rule, ...]:  # noqa: B008 - frozen
    """For `frames_duckdb.interactions`."""
    found = [
        *_named(context.now),
        _present("agent"),
        _present("session"),
        _one_of("role", ROLES),
        _one_of("arm_kind", get_args(ArmKind)),
        _one_of("endpoint", ("chat", "completions", "responses", "embeddings"), "warning"),
        _between("status", 0, 599),
        *(_between(c, 0) for c in ("cost_usd", "prompt_tokens", "completion_tokens", "latency_s")),
        _always("messages_valid", True, "messages is a list of objects that have a role"),
        _between("prompt_chars", 0, LONGEST_PROMPT, "warning"),
        _between("completion_chars", 0, LONGEST_COMPLETION, "warning"),
        msgspec.structs.replace(
            rule(
                f"at most {context.copied_share:.0%} of the rows are exact copies (copies)",
                "column_values_to_be_between",
                "warning",
                column="copies",
                max_value=1,
                mostly=1 - context.copied_share,
            ),
            least=FEW,
        ),
        *_fresh(context),
        *_volume(context),
    ]
    if context.languages:
        words = f"at least {1 - context.foreign_share:.0%} of the sampled texts are in {', '.join(context.languages)}"
        among = list(context.languages)
        share = 1 - context.foreign_share
        spoken = rule(
            f"{words} (language)",
            "column_values_to_be_in_set",
            "warning",
            column="language",
            value_set=among,
            mostly=share,
        )
        found.append(msgspec.structs.replace(spoken, least=FEW))
    return tuple(found)


def feedback(context: Context = Context()) -> tuple[Rule, ...]:  # noqa: B008 - frozen
    """For `frames_duckdb.feedback`."""
    low, high = context.good_share
    balance = rule(
        f"the share of good outcomes is between {low:.0%} and {high:.0%} (good)",
        "column_mean_to_be_between",
        "warning",
        column="good",
        min_value=low,
        max_value=high,
    )
    merged = rule(
        "most feedback is its voice's last word (merged_over)",
        "column_values_to_be_in_set",
        "warning",
        column="merged_over",
        value_set=[False],
        mostly=0.5,
    )
    return (
        *_named(context.clock),
        _present("interaction"),
        _one_of("kind", get_args(FeedbackKind)),
        _between("score", 0, 1),
        _always("known", True, "its interaction is in the lake", "warning"),
        # Imported ratings often carry a date alone, which lies before the answer of that day.
        _always("before", False, "it came after its interaction", "warning"),
        msgspec.structs.replace(merged, least=FEW),
        msgspec.structs.replace(balance, least=FEW),
        *_fresh(context),
        *_volume(context),
    )


def dataset(context: Context = Context()) -> tuple[Rule, ...]:  # noqa: B008 - frozen
    """For `frames_examples.examples`."""
    largest = rule(
        f"no scenario class has more than {context.max_class_share:.0%} of the examples (class_share)",
        "column_max_to_be_between",
        "warning",
        column="class_share",
        max_value=context.max_class_share,
    )
    mixed = _always("mixed", False, "every source is on one side of the split only")
    found = [
        *_named(None),
        _between("quality", 0, 1),
        _present("source"),
        _one_of("split", ("train", "validation", "test")),
        _between("prompt_chars", 1, LONGEST_PROMPT),
        _between("completion_chars", 2, LONGEST_COMPLETION),
        _always("contaminated", False, "no example is also an item of an evaluation"),
        _always("interactions_known", True, "the interactions that it came from are in the lake"),
        msgspec.structs.replace(mixed, sets_aside=False),  # a fault of the split, not of these examples
        msgspec.structs.replace(largest, least=FEW),
    ]
    if context.answers == "schema":
        found.append(_always("completion_valid", True, "completion conforms to the agent's schema"))
    elif context.answers == "json":
        found.append(_always("completion_valid", True, "completion is JSON", "warning"))
    return tuple(found)


def _named(latest: float | None) -> list[Rule]:
    found = [
        rule("there is at least one row", "table_row_count_to_be_between", min_value=1),
        _present("id"),
        _always("repeated", False, "no id comes twice"),
    ]
    if latest is not None:
        found.append(_between("at", EPOCH, latest + CLOCKS, words="at is a time between 2020 and now"))
    return found


def _present(column: str) -> Rule:
    return rule(f"{column} is not missing", "column_values_to_not_be_null", column=column)


def _one_of(column: str, among: Sequence[str], severity: Severity = "critical") -> Rule:
    words = f"{column} is one of {', '.join(among)}"
    return rule(words, "column_values_to_be_in_set", severity, column=column, value_set=list(among))


def _always(column: str, value: bool, words: str, severity: Severity = "critical") -> Rule:
    return rule(f"{words} ({column})", "column_values_to_be_in_set", severity, column=column, value_set=[value])


def _between(
    column: str, low: float, high: float | None = None, severity: Severity = "critical", words: str = ""
) -> Rule:
    said = f"{column} is {low:g} or more" if high is None else f"{column} is between {low:g} and {high:g}"
    limits = {"min_value": low} if high is None else {"min_value": low, "max_value": high}
    return rule(words or said, "column_values_to_be_between", severity, column=column, **limits)


def _fresh(context: Context) -> list[Rule]:
    if context.now is None:
        return []
    words = f"the newest record is at most {context.stale_days:g} days old (at)"
    oldest = context.now - context.stale_days * DAY
    return [rule(words, "column_max_to_be_between", "warning", column="at", min_value=oldest)]


def _volume(context: Context) -> list[Rule]:
    if not context.history or not context.days:
        return []
    # A fleet that rests on most days has a median of 0.
    usual = statistics.median(context.history) or statistics.fmean(context.history)
    if not usual:
        return []
    least, most = (round(share * usual * context.days) for share in context.volume)
    words = f"there are {least} to {most} rows, as {usual:g} a day are usual"
    return [rule(words, "table_row_count_to_be_between", "warning", min_value=least, max_value=most)]
