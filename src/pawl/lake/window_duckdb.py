"""A window of the lake, of one agent or all, as DuckDB tables: for what reads many rows."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import duckdb
import psutil

from pawl.errors import LakeError
from pawl.lake import tables_pyarrow as tables
from pawl.lake.parquet_lake import ParquetLake
from pawl.lake.records import TABLES, Feedback, Interaction, Observation

Connection = duckdb.DuckDBPyConnection
MEMORY = "1500MB"


@contextmanager
def window(
    lake: ParquetLake,
    agent: str | None,
    since: float | None = None,
    until: float | None = None,
    late_days: float = 0.0,
) -> Iterator[duckdb.DuckDBPyConnection]:
    """A connection with the views `interactions`, `feedback` and `observations`, of one agent, or of all (None).

    Interactions are those with since <= at < until, and older ones, up to `late_days` before, that feedback came about
    since. Feedback is all that came since (it comes late, so that its window has no end) and what was said before of
    those older ones. `recorded` holds whatever that feedback can be about. Columns are the records' fields; nested ones
    are JSON text. What is still in the journal is in it too. Larger work spills to a folder that goes with the
    connection.
    """
    low = float("-inf") if since is None else since
    high = float("inf") if until is None else until
    earliest = low - late_days * 86_400
    first = None if since is None else earliest
    whose = "true" if agent is None else f"agent = {_text(agent)}"
    # The journal first: what is ingested meanwhile is then seen twice rather than not at all.
    pending = lake.pending()
    with (
        _spilling(lake.scratch()) as spill,
        duckdb.connect(
            ":memory:",
            config={"memory_limit": MEMORY, "preserve_insertion_order": False, "temp_directory": str(spill)},
        ) as db,
    ):
        for kind, end in ((Feedback, None), (Observation, until), (Interaction, None)):
            table = TABLES[kind]
            rows = [r for r in pending if isinstance(r, kind) and agent in (None, r.agent)]
            db.register(f"{table}_pending", tables.table(kind, rows))
            files = [str(f) for f in lake.files(table, agent, first, end)]
            parts = [f"SELECT * FROM {table}_pending"]  # noqa: S608 - our own names, here and below
            if files:
                # Files that older versions wrote lack columns; the empty table of today's brings them.
                relation = db.read_parquet(files, union_by_name=True, hive_partitioning=False)
                relation.create_view(f"{table}_stored")
                stored = f"SELECT id FROM {table}_stored"  # noqa: S608
                parts = [f"SELECT * FROM {table}_stored", f"{parts[0]} WHERE id NOT IN ({stored})"]  # noqa: S608
            db.execute(
                f"CREATE VIEW {table}_near AS SELECT * FROM ({' UNION ALL BY NAME '.join(parts)}) "  # noqa: S608
                f'WHERE {whose} AND "at" >= {_number(earliest)}'
            )
        inside, before = f'"at" >= {_number(low)}', f'"at" < {_number(high)}'
        late = f"SELECT interaction FROM feedback_near WHERE {inside}"  # noqa: S608
        told, asked = inside, f"{inside} AND {before}"
        if since is not None and late_days > 0:
            told = f"{inside} OR interaction IN ({late})"
            asked = f"{before} AND ({inside} OR id IN ({late}))"
        for name, condition in (
            ("feedback", told),
            ("interactions", asked),
            ("observations", f"{inside} AND {before}"),
        ):
            db.execute(f"CREATE VIEW {name} AS SELECT * FROM {name}_near WHERE {condition}")  # noqa: S608
        # Whatever feedback of the window can be about, what came after its end too.
        db.execute("CREATE VIEW recorded AS SELECT * FROM interactions_near")
        yield db


@contextmanager
def _spilling(folder: Path) -> Iterator[Path]:
    """A folder for what does not fit into memory: prompts as they came, so that it is nobody else's and never stays.

    What a process that was killed left is swept by the next. LakeError for what goes wrong in SQL meanwhile.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        for left in folder.glob("window-*"):
            if not psutil.pid_exists(int(left.name.split("-")[1])):
                shutil.rmtree(left, ignore_errors=True)
        with tempfile.TemporaryDirectory(prefix=f"window-{os.getpid()}-", dir=folder) as mine:
            yield Path(mine)
    except duckdb.Error as e:
        told = str(e).splitlines()[0]
        raise LakeError(
            f"the window could not be read ({told}); if the lake was changed meanwhile, run it again"
        ) from e
    except OSError as e:
        raise LakeError(f"{folder} cannot be written: {e.strerror or e}; free disk space") from e


def _number(value: float) -> str:
    return f"CAST('{value}' AS DOUBLE)"


def _text(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"
