"""A month of the lake, summed by DuckDB: no record becomes a Python object."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import duckdb
import msgspec

from pawl.lake.parquet_lake import ParquetLake
from pawl.lake.window_duckdb import window
from pawl.monitoring import month_sql as sql
from pawl.monitoring.month_facts import GROUPS, Day, Latency, Month, Pairs, Scope, Tallies, Traffic, Workflow
from pawl.monitoring.months import days_of

# (hits, of) by group and the number of sessions -> bounds of the share: what a percentile's interval is read off by
ShareBounds = Callable[[list[float], list[float], int], tuple[float, float]]
PERCENTILES = (0.5, 0.95)


class CloudPrice(NamedTuple):
    """What "all in the cloud" is priced by, for one agent."""

    arm: str  # its name in records
    prompt: float  # US dollars a million tokens
    completion: float


def summed(
    lake: ParquetLake,
    since: float,
    until: float,
    *,
    clouds: Mapping[str, CloudPrice],
    default: CloudPrice | None,
    base_names: tuple[str, ...],
    share_bounds: ShareBounds,
    zone: dt.tzinfo = dt.UTC,
) -> Month:
    """The interactions with since <= at < until (epoch seconds) and all feedback about them that came so far.

    `clouds`: by agent; `default`: for agents that are not in it; `base_names`: arms that are the base model itself;
    `zone`: what its days are in. LakeError where the lake cannot be read.
    """
    with window(lake, None, since, until) as db:
        _prepare(db, clouds, default, base_names)
        ((first, last, imported, embeddings),) = db.execute(sql.SPAN).fetchall()
        days = days_of(first, last, zone) if first is not None else []
        db.execute("CREATE TABLE days(day VARCHAR, since DOUBLE, until DOUBLE)")
        if days:
            db.executemany("INSERT INTO days VALUES (?, ?, ?)", days)
        names = [str(n) for (n,) in db.execute("SELECT DISTINCT agent FROM calls ORDER BY 1").fetchall()]
        traffic, tallies, pairs = _traffic(db), _tallies(db), _pairs(db)
        late = {name: _latency(db, name, share_bounds) for name in ("", *names)}

        def scope(name: str) -> Scope:
            return Scope(
                name=name,
                traffic=traffic.get(name, Traffic()),
                tallies=tallies.get(name, Tallies()),
                pairs=pairs.get(name, {}),
                p50=late[name][0],
                p95=late[name][1],
            )

        ((used, down),) = db.execute(sql.HOURS).fetchall()
        return Month(
            fleet=scope(""),
            agents=tuple(scope(n) for n in names),
            workflows=tuple(msgspec.convert(row, Workflow) for row in _dicts(db.execute(sql.WORKFLOWS))),
            days=tuple(msgspec.convert(row, Day) for row in _dicts(db.execute(sql.DAYS))),
            first=first,
            last=last,
            imported=imported,
            embeddings=embeddings,
            hours_used=used,
            hours_down=down or 0,
        )


def _prepare(
    db: duckdb.DuckDBPyConnection,
    clouds: Mapping[str, CloudPrice],
    default: CloudPrice | None,
    base_names: tuple[str, ...],
) -> None:
    """The tables that everything else is asked of: calls, priced answers, requests, scored pairs."""
    db.execute("CREATE TABLE prices(agent VARCHAR, arm VARCHAR, prompt DOUBLE, completion DOUBLE)")
    rows = [(agent, *price) for agent, price in clouds.items()]
    if default is not None:
        known = db.execute("SELECT DISTINCT agent FROM interactions").fetchall()
        rows += [(agent, *default) for (agent,) in known if agent not in clouds]
    if rows:
        db.executemany("INSERT INTO prices VALUES (?, ?, ?, ?)", rows)
    db.execute("CREATE TABLE base_names(arm VARCHAR)")
    db.executemany("INSERT INTO base_names VALUES (?)", [(n,) for n in base_names])
    for statement in sql.TABLES:
        db.execute(statement.replace("{groups}", str(GROUPS)))


def _traffic(db: duckdb.DuckDBPyConnection) -> dict[str, Traffic]:
    """By agent, and of the fleet under ""."""
    found: dict[str, dict[str, list[float]]] = {}
    for row in _dicts(db.execute(sql.TRAFFIC)):
        columns = found.setdefault(str(row.pop("scope")), {})
        for name, value in row.items():
            columns.setdefault(name, []).append(float(value or 0.0))
    return {name: Traffic(**{k: tuple(v) for k, v in columns.items()}) for name, columns in found.items()}


def _tallies(db: duckdb.DuckDBPyConnection) -> dict[str, Tallies]:
    return {
        str(row.pop("scope")): msgspec.convert({k: v or 0 for k, v in row.items()}, Tallies)
        for row in _dicts(db.execute(sql.TALLIES))
    }


def _pairs(db: duckdb.DuckDBPyConnection) -> dict[str, dict[str, Pairs]]:
    found: dict[str, dict[str, Pairs]] = {}
    for kind, condition in sql.KINDS_OF_PAIRS.items():
        gathered: dict[str, list[tuple[float, ...]]] = {}
        for scope, *values in db.execute(sql.PAIR_SUMS.format(condition=condition)).fetchall():
            gathered.setdefault(scope, []).append(tuple(float(v) for v in values))
        for scope, rows in gathered.items():
            local, cloud, count, sources, voices = zip(*rows, strict=True)
            found.setdefault(scope, {})[kind] = Pairs(
                local=local, cloud=cloud, count=count, sources=sources, same_voice=int(sum(voices))
            )
    return found


def _latency(
    db: duckdb.DuckDBPyConnection, agent: str, share_bounds: ShareBounds
) -> tuple[Latency | None, Latency | None]:
    """The percentiles of requests that were served.

    The interval of a percentile q is read off at the bounds of the share of requests that took no longer than it:
    Woodruff, "Confidence intervals for medians and other position measures" (JASA 47, 1952).
    """
    whose = "top" if not agent else "agent = $agent"
    told: dict[str, Any] = {"agent": agent} if agent else {}
    ((values, requests, sessions),) = db.execute(
        sql.PERCENTILE.format(whose=whose, levels=list(PERCENTILES)), told
    ).fetchall()
    if not requests:
        return None, None
    found = []
    for level, value in zip(PERCENTILES, values, strict=True):
        groups = db.execute(sql.NO_LONGER.format(whose=whose), {**told, "value": value}).fetchall()
        low, high = share_bounds([float(s) for s, _ in groups], [float(n) for _, n in groups], sessions)
        # The share at the percentile itself lies a little above the level where values are few or equal.
        ((at,),) = db.execute(
            sql.PERCENTILE_AT.format(whose=whose, levels=[max(0.0, min(low, level)), min(1.0, max(high, level))]), told
        ).fetchall()
        found.append(Latency(value=value, lower=at[0], upper=at[1], requests=requests, sessions=sessions))
    return found[0], found[1]


def _dicts(relation: Any) -> list[dict[str, Any]]:
    names = [d[0] for d in relation.description]
    return [dict(zip(names, row, strict=True)) for row in relation.fetchall()]
