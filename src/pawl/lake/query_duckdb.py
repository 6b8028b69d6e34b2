"""SQL over the lake, read-only: tables `interactions`, `feedback` and `observations`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import duckdb

from pawl.errors import LakeError
from pawl.lake import tables_pyarrow as tables
from pawl.lake.parquet_lake import ParquetLake


def query(lake: ParquetLake, sql: str, most: int = 1000) -> tuple[list[str], list[tuple[Any, ...]]]:
    """(column names, at most `most` rows). LakeError where the SQL is wrong or would leave the lake.

    Only the lake's own files can be read: DuckDB is shut off from all others, from the network and from extensions.
    """
    with duckdb.connect(":memory:") as db:
        for kind, table in tables.TABLES.items():
            # Files that older versions wrote lack columns, and a table may have no file: the empty one has today's.
            parts = [db.from_arrow(tables.table(kind, []))]
            files = [str(f) for f in lake.files(table)]
            if files:
                parts.append(db.read_parquet(files, union_by_name=True, hive_partitioning=False))
            for n, part in enumerate(parts):
                part.create_view(f"{table}_{n}")
            union = " UNION ALL BY NAME ".join(f"SELECT * FROM {table}_{n}" for n in range(len(parts)))  # noqa: S608
            db.execute(f"CREATE TABLE {table} AS {union}")  # our own names
            for n in range(len(parts)):
                db.execute(f"DROP VIEW {table}_{n}")
        db.execute("SET enable_external_access = false")
        db.execute("SET lock_configuration = true")
        try:
            found = db.execute(sql)
            names = [d[0] for d in found.description or ()]
            return names, list(_rows(found, most))
        except duckdb.Error as e:
            raise LakeError(f"the query failed: {e}") from e


def _rows(found: Any, most: int) -> Iterator[tuple[Any, ...]]:
    yield from found.fetchmany(most)
