"""The sessions of a stretch of time out of the lake, drawn by a rule: however much there is, a look reads little.

Of each quarter of an hour those are taken that began in it whose session's digest is smallest: `of_client` of each API
key at most, since a job starts many that resemble each other, and `most` in all. Who comes first gains nothing by it,
and every reading draws the same. Rows of other tools' logs were no traffic of this fleet.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import groupby
from typing import Any

from pawl.lake.parquet_lake import ParquetLake
from pawl.lake.window_duckdb import window
from pawl.monitoring.drift_values import Call, Session

QUARTER_S = 900.0
_DAY_S = 86_400.0
_CALLS = 8  # of a session
_PICKED = """
    WITH asked AS (
        SELECT *, coalesce(nullif(session, ''), id) AS who, floor("at" / 86400) AS day
        FROM interactions WHERE role = 'answer' AND endpoint IN ('chat', 'completions', 'responses')
            AND NOT starts_with(reason, 'imported from ')
    ), began AS (
        SELECT who, day, min("at") AS began, min(key_id) AS client, md5(who || ' ' || day) AS lot
        FROM asked GROUP BY who, day
    ), of_clients AS (
        SELECT * FROM began WHERE began >= $low AND began < $high
        QUALIFY row_number() OVER (PARTITION BY floor(began / 900), client ORDER BY lot) <= $of_client
    ), picked AS (
        SELECT * FROM of_clients
        QUALIFY row_number() OVER (PARTITION BY floor(began / 900) ORDER BY lot) <= $most
    ), calls AS (
        SELECT a.*, p.began FROM asked a JOIN picked p USING (who, day) WHERE a."at" < p.began + 900
        QUALIFY row_number() OVER (PARTITION BY who, day ORDER BY a."at", a.id) <= $calls
    )
"""
_SAID = """,
    said AS (
        SELECT f.interaction, count(*) > 0 AS told, avg(f.score) FILTER (f.kind = 'outcome') AS outcome
        FROM feedback f JOIN calls c ON c.id = f.interaction WHERE f."at" < c."at" + $patience GROUP BY 1
    )
"""
_OK = "error IS NULL AND NOT broken AND status BETWEEN 200 AND 299"


def sessions(
    lake: ParquetLake,
    agent: str,
    low: float,
    high: float,
    *,
    of_client: int,
    most: int,
    feedback_s: float | None = None,
) -> Iterator[Session]:
    """Sessions that began in low <= at < high (epoch seconds, whole quarters of an hour), in order of time.

    With their texts, or with `feedback_s`: without texts and with what came of them within so many seconds. A day at
    a time is in memory.
    """
    at = low
    while at < high:
        day = at // _DAY_S * _DAY_S
        until = min(high, day + _DAY_S)
        yield from _of_day(lake, agent, day, at, until, (of_client, most), feedback_s)
        at = until


def _of_day(
    lake: ParquetLake,
    agent: str,
    day: float,
    low: float,
    high: float,
    most: tuple[int, int],
    feedback_s: float | None,
) -> list[Session]:
    given: dict[str, Any] = {"low": low, "high": high, "of_client": most[0], "most": most[1], "calls": _CALLS}
    if feedback_s is None:
        columns = f"who, began, arm, {_OK}, messages, completion, task, endpoint, tool_calls"
        sql = f'{_PICKED} SELECT {columns} FROM calls ORDER BY began, who, "at", id'  # noqa: S608 - our own names
    else:
        given["patience"] = feedback_s
        columns = f"who, began, arm, {_OK}, coalesce(told, false), outcome"
        sql = (
            f"{_PICKED}{_SAID} SELECT {columns} FROM calls c LEFT JOIN said s ON s.interaction = c.id "  # noqa: S608
            'ORDER BY began, who, c."at", c.id'
        )
    with window(lake, agent, day, high + QUARTER_S) as db:
        rows = db.execute(sql, given).fetchall()
    found = []
    for (who, began), of_session in groupby(rows, key=lambda r: (r[0], r[1])):
        calls = tuple(_call(r[2:], feedback_s is not None) for r in of_session)
        found.append(Session(id=who, at=began, calls=calls))
    return found


def _call(row: tuple[Any, ...], late: bool) -> Call:
    if late:
        arm, ok, told, outcome = row
        return Call(arm=arm, ok=ok, told=told, outcome=outcome)
    arm, ok, messages, completion, task, endpoint, tools = row
    return Call(
        arm=arm, ok=ok, messages=_list(messages), completion=completion or "", task=_dict(task),
        endpoint=endpoint, tools=bool(_list(tools)),
    )  # fmt: skip


def _list(text: str | None) -> list[dict[str, Any]]:
    found = json.loads(text or "[]")
    return [m for m in found if isinstance(m, dict)] if isinstance(found, list) else []


def _dict(text: str | None) -> dict[str, Any]:
    found = json.loads(text or "{}")
    return found if isinstance(found, dict) else {}
