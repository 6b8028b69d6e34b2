"""An agent's window of the lake as DuckDB tables: for what reads many rows."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import duckdb

from pawl.lake import tables_pyarrow as tables
from pawl.lake.parquet_lake import ParquetLake
from pawl.lake.records import Feedback, Interaction

MEMORY = "1500MB"


@contextmanager
def window(
    lake: ParquetLake, agent: str, since: float | None = None, until: float | None = None
) -> Iterator[duckdb.DuckDBPyConnection]:
    """A connection with the views `interactions` (since <= at < until) and `feedback` (since <= at), of one agent.

    Feedback comes late, so its window has no end. Columns are the records' fields; nested ones are JSON text. What is
    still in the journal is in it too. Larger work spills to a temporary folder that goes with the connection.
    """
    low = float("-inf") if since is None else since
    high = float("inf") if until is None else until
    # The journal first: what is ingested meanwhile is then seen twice rather than not at all.
    pending = lake.pending()
    with duckdb.connect(":memory:", config={"memory_limit": MEMORY, "preserve_insertion_order": False}) as db:
        for kind, end in ((Interaction, high), (Feedback, float("inf"))):
            table = tables.TABLES[kind]
            db.register(f"{table}_pending", tables.table(kind, [r for r in pending if isinstance(r, kind)]))
            files = [str(f) for f in lake.files(table, agent, since, None if end == float("inf") else end)]
            parts = [f"SELECT * FROM {table}_pending"]  # noqa: S608 - our own names, here and below
            if files:
                # Files that older versions wrote lack columns; the empty table of today's brings them.
                relation = db.read_parquet(files, union_by_name=True, hive_partitioning=False)
                relation.create_view(f"{table}_stored")
                parts = [
                    f"SELECT * FROM {table}_stored",  # noqa: S608
                    f"SELECT * FROM {table}_pending WHERE id NOT IN (SELECT id FROM {table}_stored)",  # noqa: S608
                ]
            db.execute(
                f"CREATE VIEW {table} AS SELECT * FROM ({' UNION ALL BY NAME '.join(parts)}) "  # noqa: S608
                f"WHERE agent = {_text(agent)} AND at >= {_number(low)} AND at < {_number(end)}"
            )
        yield db


def _number(value: float) -> str:
    return f"CAST('{value}' AS DOUBLE)"


def _text(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"
