"""A day of the lake, summed by DuckDB: one row an agent, and the outcomes of its sessions."""

from __future__ import annotations

from typing import Any

from pawl.lake.parquet_lake import ParquetLake
from pawl.lake.window_duckdb import window
from pawl.monitoring import month_sql as sql
from pawl.monitoring.day_summary import Outcomes, Traffic
from pawl.monitoring.month_facts import GROUPS

# Requests and calls are the month's, so that the two pages agree on the same records.
_TABLES = (sql.CALLS, sql.SESSIONS, sql.REQUESTS, sql.SCORES)
_TRAFFIC = """
    WITH asked AS (
        SELECT agent, count(*) FILTER (outcome = 'served') AS answered, count(*) FILTER (outcome = 'failed') AS failed,
            quantile_disc(took, 0.95) FILTER (outcome = 'served') AS p95_s
        FROM requests GROUP BY 1
    ), money AS (
        SELECT agent,
            count(*) FILTER (role = 'answer' AND ok AND arm_kind = 'local' AND NOT is_chain) AS answered_locally,
            count(*) FILTER (role = 'answer' AND ok AND arm_kind = 'cloud' AND fallback) AS fallbacks,
            coalesce(sum(cost_usd) FILTER (role <> 'shadow'), 0.0) AS spent_usd,
            coalesce(sum(cost_usd) FILTER (role = 'shadow'), 0.0) AS shadow_usd
        FROM calls GROUP BY 1
    )
    SELECT agent, coalesce(answered, 0) AS answered, coalesce(failed, 0) AS failed, answered_locally, fallbacks,
        spent_usd, shadow_usd, p95_s
    FROM money LEFT JOIN asked USING (agent)
"""
_OUTCOMES = """
    WITH rated AS (SELECT interaction, avg(score) AS rating FROM feedback WHERE kind = 'rating' GROUP BY 1)
    SELECT c.agent, c.arm, sum(s.score), count(s.score), sum(r.rating), count(r.rating)
    FROM calls c LEFT JOIN scores s ON s.interaction = c.id LEFT JOIN rated r ON r.interaction = c.id
    WHERE c.role = 'answer' AND coalesce(s.score, r.rating) IS NOT NULL GROUP BY c.agent, c.arm, c.session
"""


def traffic(
    lake: ParquetLake, since: float, until: float
) -> tuple[dict[str, Traffic], dict[tuple[str, str], Outcomes]]:
    """What was answered in since <= at < until (epoch seconds) by agent, and what came of it so far by agent and arm.

    Rows that other tools brought, and embeddings, are left out as in the month's report. An answer's outcome is the
    mean over judges of their latest.
    LakeError where the lake cannot be read.
    """
    with window(lake, None, since, until) as db:
        for statement in _TABLES:
            db.execute(statement.replace("{groups}", str(GROUPS)))
        rows = db.execute(_TRAFFIC).fetchall()
        said = db.execute(_OUTCOMES).fetchall()
    found = {row[0]: Traffic(*row[1:]) for row in rows}
    sessions: dict[tuple[str, str], list[tuple[Any, ...]]] = {}
    for agent, arm, *sums in said:
        sessions.setdefault((agent, arm), []).append(tuple(sums))
    return found, {at: _outcomes(rows) for at, rows in sessions.items()}


def _outcomes(sessions: list[tuple[Any, ...]]) -> Outcomes:
    """Means over answers, with 95 % bounds over sessions: calls of one session resemble each other."""
    import numpy as np

    from pawl.evaluation import resampling

    counted = [(s, c) for s, c, _, _ in sessions if c]
    rated = sum(c for *_, c in sessions)
    rating = sum(s or 0.0 for _, _, s, _ in sessions) / rated if rated else None
    if not counted:
        return Outcomes(rated=rated, rating=rating)
    sums, counts = (np.array([column], dtype=float) for column in zip(*counted, strict=True))
    low, high = np.clip(resampling.t_bounds(sums, counts, (0.025, 0.975))[0], 0.0, 1.0).tolist()
    mean = float(resampling.estimates(sums, counts)[0])
    return Outcomes(
        scored=int(counts.sum()), sessions=len(counted), mean=mean, lower=low, upper=high, rated=rated, rating=rating
    )
