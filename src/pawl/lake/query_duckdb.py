"""SQL over the lake, read-only: tables `interactions` and `feedback`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import duckdb

from pawl.errors import LakeError
from pawl.lake.parquet_lake import ParquetLake

TABLES = ("interactions", "feedback")


def query(lake: ParquetLake, sql: str, most: int = 1000) -> tuple[list[str], list[tuple[Any, ...]]]:
    """(column names, at most `most` rows). LakeError where the SQL is wrong or would leave the lake.

    Only the lake's own files can be read: DuckDB is shut off from all others, from the network and from extensions.
    """
    with duckdb.connect(":memory:") as db:
        for table in TABLES:
            files = [str(f) for f in lake.files(table)]
            if files:
                db.read_parquet(files, union_by_name=True, hive_partitioning=False).create_view(f"{table}_view")
                db.execute(f"CREATE TABLE {table} AS SELECT * FROM {table}_view")  # noqa: S608 - our own name
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
