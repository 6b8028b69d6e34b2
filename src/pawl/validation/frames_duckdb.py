"""Narrow frames of an agent's window: one row a record, ids and figures only, measured in SQL.

Texts stay in DuckDB, which reads them in a stream: what a rule wants to know of them (do they parse, how long are
they, who has the same) arrives as a column of a few bytes. A million interactions so make a frame of some 150 MB where
the records themselves take gigabytes, and no prompt can get into a report.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from pawl.validation.languages_langid import languages

if TYPE_CHECKING:
    import duckdb
    import pandas as pd

SAMPLE = 1_000  # texts whose language is looked at
LANGUAGE_S = 5.0
SKEW_S = 60.0  # what two machines' clocks may differ by
GOOD = 0.5  # an outcome's score from which it counts as good

# Columns whose values repeat: as categories they take a byte or four a row.
_CATEGORIES = ("agent", "session", "role", "arm_kind", "endpoint", "language", "kind", "source")
# A message's role and content; an element that is no object has neither, text that is no JSON array is NULL.
_MESSAGES = "TRY_CAST(TRY_CAST(messages AS JSON) AS STRUCT(role VARCHAR, content VARCHAR)[])"
# The statements below are made of our own names only; `at` is quoted because DuckDB knows a word of that spelling.


def _int32(column: str) -> str:
    # Clamped rather than cast: a figure that does not fit is for a rule to find, not an error here.
    return f"least(greatest({column}, -2147483648), 2147483647)::INTEGER AS {column}"


_INTERACTIONS = f"""
CREATE OR REPLACE TEMP TABLE measured_interactions AS
SELECT id, "at"::DOUBLE AS "at", agent, session, role, arm_kind, endpoint, {_int32("status")},
    cost_usd::FLOAT AS cost_usd, {_int32("prompt_tokens")}, {_int32("completion_tokens")},
    latency_s::FLOAT AS latency_s,
    coalesce(list_sum([length(m.content) FOR m IN parsed]), 0)::INTEGER AS prompt_chars,
    length(coalesce(completion, ''))::INTEGER AS completion_chars,
    parsed IS NOT NULL AND len([m FOR m IN parsed IF coalesce(m.role, '') = '']) = 0 AS messages_valid,
    -- Retention leaves rows without any text: they are no copies of each other.
    CASE WHEN coalesce(completion, '') <> '' OR messages <> '[]' THEN hash(session, messages, completion, arm) END
        AS twin
FROM (SELECT *, {_MESSAGES} AS parsed FROM interactions)
"""  # noqa: S608
_FEEDBACK = f"""
CREATE OR REPLACE TEMP TABLE measured_feedback AS
SELECT f.id, f."at"::DOUBLE AS "at", f.interaction, f.kind, f.score::FLOAT AS score, f.source,
    i.id IS NOT NULL AS known, coalesce(f."at" < i."at" - {SKEW_S}, false) AS before,
    CASE WHEN f.kind = 'outcome' AND f.score IS NOT NULL THEN (f.score >= {GOOD})::INTEGER::FLOAT END AS good,
    hash(f.interaction, f.kind, f.source, f.key_id) AS voice
FROM feedback f LEFT JOIN (SELECT id, min("at") AS "at" FROM {{lake}} GROUP BY id) i ON f.interaction = i.id
"""  # noqa: S608
# Few ids come twice, so that only those are put in order.
_REPEATED = """
LEFT JOIN (
    SELECT rowid AS place, row_number() OVER (PARTITION BY id ORDER BY {table}.at, rowid) AS nth FROM {table}
    WHERE id IN (SELECT id FROM {table} GROUP BY id HAVING count(*) > 1)
) r ON m.rowid = r.place
"""
_INTERACTIONS_FRAME = f"""
SELECT m.* EXCLUDE (twin), coalesce(r.nth > 1, false) AS repeated, coalesce(t.copies, 1)::INTEGER AS copies, s.language
FROM measured_interactions m {_REPEATED.format(table="measured_interactions")}
LEFT JOIN (
    SELECT twin, count(*) AS copies FROM measured_interactions WHERE twin IS NOT NULL GROUP BY twin HAVING count(*) > 1
) t ON m.twin = t.twin
LEFT JOIN spoken s ON m.id = s.id
ORDER BY m.at, m.id
"""  # noqa: S608
_FEEDBACK_FRAME = f"""
SELECT m.* EXCLUDE (voice), coalesce(r.nth > 1, false) AS repeated, coalesce(m.at < v.latest, false) AS merged_over
FROM measured_feedback m {_REPEATED.format(table="measured_feedback")}
LEFT JOIN (SELECT voice, max(measured_feedback.at) AS latest FROM measured_feedback GROUP BY voice) v USING (voice)
ORDER BY m.at, m.id
"""  # noqa: S608


def interactions(
    db: duckdb.DuckDBPyConnection, *, sample: int = SAMPLE, seed: int = 17, budget_s: float = LANGUAGE_S
) -> pd.DataFrame:
    """One row an interaction of the view `interactions`, by time.

    `repeated`: an earlier row has its id. `copies`: rows with the same session, messages, completion and arm, by a
    64-bit hash. `prompt_chars`: characters of the messages' contents. `language`: ISO 639-1 of what the user and the
    model wrote, for a random `sample` of the ids and at most `budget_s` seconds; else missing.
    """
    db.execute(_INTERACTIONS)
    try:
        spoken = _languages(db, sample, seed, budget_s)
        db.execute(
            "CREATE OR REPLACE TEMP TABLE spoken AS "
            "SELECT unnest(?::VARCHAR[]) AS id, unnest(?::VARCHAR[]) AS language",
            [list(spoken), list(spoken.values())],
        )
        _give_back_memory(db)
        table = db.sql(_INTERACTIONS_FRAME).to_arrow_table()
    finally:
        db.execute("DROP TABLE measured_interactions; DROP TABLE IF EXISTS spoken")
        _give_back_memory(db)
    return _frame(table)


def feedback(db: duckdb.DuckDBPyConnection, *, lake: str = "interactions") -> pd.DataFrame:
    """One row a feedback of the view `feedback`, by time.

    `lake`: the view (columns id, at) that interactions are looked for in: the window's, or that of the whole lake, as
    feedback may be about an older one. `known`: it is there. `before`: the feedback is older than it by more than
    SKEW_S. `merged_over`: a later one of the same kind, source and key is about the same interaction. `good`: an
    outcome's score is at least GOOD (1 or 0), missing for other kinds.
    """
    db.execute(_FEEDBACK.format(lake='"' + lake.replace('"', '""') + '"'))
    try:
        table = db.sql(_FEEDBACK_FRAME).to_arrow_table()
    finally:
        db.execute("DROP TABLE measured_feedback")
        _give_back_memory(db)
    return _frame(table)


def _frame(table: Any) -> pd.DataFrame:
    named = [c for c in _CATEGORIES if c in table.column_names]
    # One block a column: pandas would copy columns of one kind together, while the table is still held.
    frame: pd.DataFrame = table.to_pandas(categories=named, split_blocks=True, self_destruct=True)
    return frame


def _give_back_memory(db: duckdb.DuckDBPyConnection) -> None:
    """DuckDB keeps what it has freed, some 500 MB after a million rows; setting its limit makes it let go."""
    (limit,) = db.execute("SELECT current_setting('memory_limit')").fetchone() or ("",)
    db.execute(f"SET memory_limit = '{limit}'")


def _languages(db: duckdb.DuckDBPyConnection, sample: int, seed: int, budget_s: float) -> dict[str, str]:
    """id -> language. The same sample for the same rows and seed, whatever order they are stored in."""
    rows = db.execute(
        "SELECT id, messages, completion FROM interactions WHERE id IN "
        "(SELECT id FROM measured_interactions WHERE messages_valid ORDER BY hash(id, ?), id LIMIT ?)",
        [seed, sample],
    ).fetchall()
    rows = list({row[0]: row for row in rows}.values())
    found = languages([f"{_written(messages)}\n{completion or ''}" for _, messages, completion in rows], budget_s)
    return {row[0]: language for row, language in zip(rows, found, strict=True) if language}


def _written(messages: str) -> str:
    """What the user wrote. The system prompt is the team's own, the same in every row."""
    said: Sequence[dict[str, Any]] = msgspec.json.decode(messages)
    return "\n".join(_text(m.get("content")) for m in said if m.get("role") == "user")


def _text(content: Any) -> str:
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else []
    return "\n".join(p if isinstance(p, str) else str(p.get("text", "")) for p in parts if isinstance(p, str | dict))
