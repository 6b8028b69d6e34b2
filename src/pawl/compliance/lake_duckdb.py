# ruff: noqa: S608 - the SQL is made of names that stand in this file; what comes from elsewhere is bound or quoted
"""The lake and the audit log's cloud calls as DuckDB tables: a million interactions without reading any text."""

from __future__ import annotations

import csv
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import duckdb

from pawl.compliance.access import CLOUD_CALLS
from pawl.compliance.facts import Day, Sent
from pawl.errors import LakeError
from pawl.lake import tables_pyarrow as tables
from pawl.lake.erased import WIDTH
from pawl.lake.manifest import Erased
from pawl.lake.parquet_lake import ParquetLake
from pawl.lake.records import TABLES, Feedback, Interaction, LakeRecord

MEMORY = "1500MB"
_LATE_S = 3600.0  # a call is recorded at its start and audited at each attempt
_IMPORTED = "reason LIKE 'imported from %'"
_AT = '"at"'
_WINDOW = '"at" >= $since AND "at" < $until AND ($agent = \'\' OR agent = $agent)'
_COLUMNS = (
    "id", "at", "agent", "session", "user", "key_id", "arm", "arm_kind", "role", "endpoint", "shadow_of", "reason",
    "privacy", "consent", "status", "error", "prompt_tokens", "completion_tokens", "cost_usd", "task",
)  # fmt: skip


class Span(NamedTuple):
    """The window, [since, until) in epoch seconds, and the agent; empty: all."""

    since: float
    until: float
    agent: str = ""


class Records:
    """What the lake recorded, as far as a report needs it. LakeError where a query fails."""

    def __init__(self, db: duckdb.DuckDBPyConnection, folder: Path) -> None:
        self._db, self._folder = db, folder

    # -- what left

    def match(self, entries: Iterable[Mapping[str, Any]], names: Mapping[str, str], upstreams: Mapping[str, str],
              span: Span) -> None:  # fmt: skip
        """Make the table `egress`: the audit log's cloud calls, each with its record where there is one, and records
        of cloud answers that the log does not know.

        `entries`: of the audit log, of all time. `names`: of keys, by id. `upstreams`: of cloud arms, by arm.
        """
        self._load("calls", ("seq", "at", "kind", "id", "agent", "key_id", "upstream", "host", "mode"), (
            (e["seq"], e["at"], CLOUD_CALLS[e["event"]], d.get("id", ""), d.get("agent", ""), e["by"],
             d.get("upstream", ""), d.get("host", ""), d.get("mode", ""))
            for e in entries if e["event"] in CLOUD_CALLS for d in (e["detail"],)
        ), "BIGINT DOUBLE VARCHAR VARCHAR VARCHAR VARCHAR VARCHAR VARCHAR VARCHAR")  # fmt: skip
        self._load("names", ("key_id", "name"), ((k, _cell(v)) for k, v in names.items()), "VARCHAR VARCHAR")
        self._load("arms", ("arm", "upstream"), upstreams.items(), "VARCHAR VARCHAR")
        wide = {"since": span.since - _LATE_S, "until": span.until + _LATE_S, "agent": span.agent}
        self._do(
            'CREATE TABLE records AS SELECT coalesce(shadow_of, id) about, id, i."at", agent, key_id, i.arm, upstream, '
            "role = 'shadow' shadow, role, endpoint, privacy, consent, status, error IS NOT NULL failed, "
            f"prompt_tokens, completion_tokens, cost_usd, {_IMPORTED} imported FROM interactions i "
            f"LEFT JOIN arms a ON a.arm = i.arm WHERE arm_kind = 'cloud' AND {_WINDOW.replace(_AT, 'i.' + _AT)}",
            wide,
        )
        self._do(_EGRESS, span._asdict())

    def sent(self) -> tuple[Sent, ...]:
        """By agent, caller, upstream, mode and kind; the most first."""
        rows = self._do(
            "SELECT agent, key_name, key_id, upstream, host, mode, kind, count(*), sum(attempts), min(epoch), "
            "max(epoch), coalesce(sum(prompt_tokens), 0), coalesce(sum(completion_tokens), 0), "
            "coalesce(sum(cost_usd), 0) FROM egress GROUP BY ALL ORDER BY 8 DESC, 1, 2, 3, 4, 5, 6, 7"
        )
        return tuple(
            Sent(agent=r[0], by=r[1], key_id=r[2], upstream=r[3], host=r[4], mode=r[5], kind=r[6], requests=r[7],
                 attempts=int(r[8]), first=r[9], last=r[10], prompt_tokens=int(r[11]), completion_tokens=int(r[12]),
                 cost_usd=float(r[13]))
            for r in rows
        )  # fmt: skip

    def days(self, blocked: Mapping[str, int]) -> tuple[Day, ...]:
        """By UTC day, in order. `blocked`: by day."""
        rows = self._do("SELECT day, count(*) FILTER (kind = 'request'), count(*) FILTER (kind = 'shadow') "
                        "FROM egress GROUP BY day")  # fmt: skip
        found = {day: (calls, shadows) for day, calls, shadows in rows}
        return tuple(Day(d, *found.get(d, (0, 0)), blocked.get(d, 0)) for d in sorted(found.keys() | blocked.keys()))

    def unaudited(self) -> int:
        """Records of cloud answers that the audit log does not know."""
        return self._number("SELECT count(*) FROM egress WHERE NOT in_audit_log")

    def recorded(self, span: Span) -> tuple[int, int, int, int]:
        """(interactions, of them local ones, imported ones, ones that nobody may learn from) in the window."""
        row = self._do(
            f"SELECT count(*) FILTER (NOT {_IMPORTED}), count(*) FILTER (arm_kind = 'local'), "
            f"count(*) FILTER ({_IMPORTED}), count(*) FILTER (consent = 'denied') FROM interactions WHERE {_WINDOW}",
            span._asdict(),
        )[0]
        return row[0], row[1], row[2], row[3]

    def write(self, folder: Path) -> tuple[Path, Path]:
        """Every request that left, as CSV and as Parquet."""
        paths = folder / "egress.csv", folder / "egress.parquet"
        for path, form in zip(paths, ("FORMAT csv, HEADER", "FORMAT parquet, COMPRESSION zstd"), strict=True):
            self._do(f"COPY (SELECT * EXCLUDE (epoch, day) FROM egress ORDER BY epoch, id) TO {_text(path)} ({form})")
        return paths

    # -- keys and erasures

    def last_used(self) -> dict[str, float]:
        """When each key last asked or said something, of all time."""
        rows = self._do(
            "SELECT key_id, max(\"at\") FROM (SELECT key_id, \"at\" FROM interactions WHERE NOT coalesce("
            f"{_IMPORTED}, false) UNION ALL SELECT key_id, \"at\" FROM feedback WHERE key_id <> '') GROUP BY key_id"
        )  # fmt: skip
        return dict(rows)

    def leftovers(self, erased: Iterable[Erased], digests: bytes) -> int:
        """Interactions and feedback in the lake that an erasure should have taken out: 0 where all was done.

        Looked for by the digests that erasures leave, since nobody remembers whom they were about.
        """
        self._load("marks", ("digest", "until"), ((e.sha256, e.at) for e in erased), "VARCHAR DOUBLE")
        some = (digests[n : n + WIDTH].hex() for n in range(0, len(digests), WIDTH))
        self._load("gone", ("digest",), ((d,) for d in some), "VARCHAR")
        people = " UNION ALL ".join(
            f"SELECT id, \"at\", sha256({who}) digest FROM interactions WHERE {who} <> ''"
            for who in ("session", '"user"', "task->>'subject'")
        )
        short = f"left(sha256({{}}), {2 * WIDTH}) IN (SELECT digest FROM gone)"
        return self._number(
            f'SELECT count(*) FROM (SELECT id FROM ({people}) p JOIN marks m USING (digest) WHERE "at" <= m.until '
            f"UNION SELECT id FROM interactions WHERE {short.format('id')} "
            f"UNION SELECT id FROM feedback WHERE {short.format('interaction')})"
        )

    # -- plumbing

    def _load(self, table: str, columns: tuple[str, ...], rows: Iterable[Iterable[Any]], types: str) -> None:
        """A table of these rows, through a file: row by row DuckDB takes minutes for a million."""
        path = self._folder / f"{table}.csv"
        with path.open("w", newline="") as out:
            csv.writer(out, quoting=csv.QUOTE_ALL).writerows(rows)
        kinds = ", ".join(f"{_text(n)}: {_text(t)}" for n, t in zip(columns, types.split(), strict=True))
        self._do(
            f"CREATE OR REPLACE TABLE {table} AS SELECT * FROM read_csv({_text(path)}, header = false, quote = '\"', "
            f"escape = '\"', delim = ',', auto_detect = false, allow_quoted_nulls = false, columns = {{{kinds}}})"
        )
        path.unlink()

    def _do(self, sql: str, values: Mapping[str, Any] | None = None) -> list[tuple[Any, ...]]:
        used = {k: v for k, v in (values or {}).items() if f"${k}" in sql}
        return self._db.execute(sql, used or None).fetchall()

    def _number(self, sql: str) -> int:
        return int(self._do(sql)[0][0])


# Failed attempts before the one that answered have ids of their own: the log has them under the request's id.
_EGRESS = """
CREATE TABLE egress AS
WITH sent AS (
    SELECT id, kind, agent, key_id, upstream, max(host) host, max(mode) mode, min("at") first, count(*) attempts,
        min(seq) seq
    FROM calls WHERE "at" >= $since AND "at" < $until AND ($agent = '' OR agent = $agent) GROUP BY ALL
), listed AS (
    SELECT s.id, s.first epoch, s.agent, s.key_id, s.kind, s.upstream, s.host, s.mode, s.attempts, s.seq, r.endpoint,
        r.consent, r.status, r.prompt_tokens, r.completion_tokens, r.cost_usd, true in_audit_log
    FROM sent s LEFT JOIN (SELECT DISTINCT ON (about, shadow, upstream) * FROM records WHERE NOT imported) r
        ON r.about = s.id AND r.shadow = (s.kind = 'shadow') AND coalesce(r.upstream, s.upstream) = s.upstream
    UNION ALL
    SELECT about, "at", agent, key_id, CASE WHEN shadow THEN 'shadow' ELSE 'request' END, coalesce(upstream, arm), '',
        privacy, 1, NULL, endpoint, consent, status, prompt_tokens, completion_tokens, cost_usd, false
    FROM records WHERE NOT imported AND NOT failed AND role IN ('answer', 'shadow')
        AND "at" >= $since AND "at" < $until AND NOT EXISTS (SELECT 1 FROM calls c WHERE c.id = about)
)
SELECT l.id, strftime(make_timestamp(CAST(epoch * 1000000 AS BIGINT)), '%Y-%m-%dT%H:%M:%SZ') "at",
    strftime(make_timestamp(CAST(epoch * 1000000 AS BIGINT)), '%Y-%m-%d') "day", epoch, l.agent, l.key_id,
    coalesce(n.name, l.key_id) key_name, l.kind, l.upstream, l.host, l.mode, l.consent, l.endpoint, l.attempts,
    l.status, l.prompt_tokens, l.completion_tokens, l.cost_usd, l.in_audit_log, l.seq audit_entry
FROM listed l LEFT JOIN names n ON n.key_id = l.key_id
"""


@contextmanager
def records(lake: ParquetLake, pending: list[LakeRecord]) -> Iterator[Records]:
    """What the lake holds, and the journal still (`pending`). Larger work spills to a folder that goes at the end."""
    scratch = lake.scratch()
    try:
        scratch.mkdir(parents=True, exist_ok=True, mode=0o700)
        # The name that the lake's own windows have: what a killed process left is swept by the next of them.
        with (
            tempfile.TemporaryDirectory(prefix=f"window-{os.getpid()}-", dir=scratch) as folder,
            duckdb.connect(":memory:", config={"memory_limit": MEMORY, "preserve_insertion_order": False,
                                               "temp_directory": folder}) as db,
        ):  # fmt: skip
            for kind, columns in ((Interaction, _COLUMNS), (Feedback, ("id", "at", "interaction", "key_id"))):
                _view(db, lake, kind, columns, [r for r in pending if isinstance(r, kind)])
            yield Records(db, Path(folder))
    except duckdb.Error as e:
        told = str(e).splitlines()[0]
        raise LakeError(f"the report's query failed ({told}); if the lake was changed meanwhile, run it again") from e
    except OSError as e:
        raise LakeError(f"{e.filename or scratch} cannot be written: {e.strerror or e}; free disk space") from e


def _view(
    db: duckdb.DuckDBPyConnection, lake: ParquetLake, kind: type[Any], columns: tuple[str, ...], waiting: list[Any]
) -> None:
    table = TABLES[kind]
    db.register(f"{table}_pending", tables.table(kind, waiting))
    picked = ", ".join(f'"{c}"' for c in columns)
    parts = f"SELECT {picked} FROM {table}_pending"
    if files := [str(f) for f in lake.files(table)]:
        # Files of older versions lack columns: the empty table has today's.
        db.read_parquet(files, union_by_name=True, hive_partitioning=False).create_view(f"{table}_files")
        whole = f"SELECT * FROM {table}_files UNION ALL BY NAME SELECT * FROM {table}_pending WHERE false"
        db.execute(f"CREATE VIEW {table}_stored AS SELECT {picked} FROM ({whole})")
        parts = f"SELECT * FROM {table}_stored UNION ALL {parts} WHERE id NOT IN (SELECT id FROM {table}_stored)"
    db.execute(f"CREATE VIEW {table} AS {parts}")


def _cell(name: str) -> str:
    """A name that a spreadsheet takes for text and not for a formula."""
    return f"'{name}" if name[:1] in "=+-@\t\r" else name


def _text(value: object) -> str:
    return "'" + str(value).replace("'", "''") + "'"
