"""A window of the lake in SQL: what is in it, and what it leaves behind."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from pawl.errors import LakeError
from pawl.lake.parquet_lake import ParquetLake
from pawl.lake.window_duckdb import window
from tests.contract.test_lake_erasure import AT, DAY, append, bug, feedback, interaction

Open = Callable[..., ParquetLake]


def ids(db: object, table: str) -> list[str]:
    return sorted(i for (i,) in db.execute(f"SELECT id FROM {table}").fetchall())  # type: ignore[attr-defined]


def test_stored_and_journalled_rows_of_one_agent_each_once(lake: Open, tmp_path: Path) -> None:
    lake().add([interaction(1), interaction(2, agent="other"), feedback(1), bug(1)])
    journal = append(tmp_path / "journal", interaction(3), feedback(3))
    with window(lake(), "a") as db:
        assert (ids(db, "interactions"), ids(db, "feedback"), ids(db, "observations")) == (
            ["i1", "i3"],
            ["f1", "f3"],
            ["o1"],
        )
    journal.close()
    lake().ingest()
    with window(lake(), "a") as db:
        assert ids(db, "interactions") == ["i1", "i3"]
    with window(lake(), "o'; DROP") as db:
        assert ids(db, "interactions") == []


def test_the_window_s_borders_and_what_late_feedback_brings_back(lake: Open) -> None:
    rows = [interaction(n, AT + day * DAY) for n, day in ((1, -40), (2, -5), (3, -4), (4, 1), (5, 9))]
    told = [
        feedback(1, AT + DAY),
        feedback(2, AT + DAY),
        feedback(2, AT - 4 * DAY, "early"),
        feedback(5, AT + 20 * DAY),
    ]
    lake().add([*rows, *told])
    with window(lake(), "a", AT, AT + 7 * DAY, late_days=30) as db:
        assert ids(db, "interactions") == ["i2", "i4"]
        assert ids(db, "feedback") == ["early2", "f1", "f2", "f5"]
        assert ids(db, "recorded") == ["i2", "i3", "i4", "i5"]
    with window(lake(), "a", AT, AT + 7 * DAY) as db:
        assert (ids(db, "interactions"), ids(db, "feedback")) == (["i4"], ["f1", "f2", "f5"])


def test_what_spills_is_private_and_goes_and_so_does_what_the_killed_left(lake: Open) -> None:
    opened = lake()
    folder = opened.scratch()
    dead = subprocess.Popen(["true"])
    dead.wait()
    (folder / f"window-{dead.pid}-x").mkdir(parents=True)
    mine = folder / f"window-{os.getpid()}-x"
    mine.mkdir()
    with window(opened, "a") as db:
        (where,) = [p for p in folder.iterdir() if p != mine]
        assert where.stat().st_mode & 0o077 == 0
        db.execute("SET memory_limit = '20MB'")
        db.execute("CREATE TEMP TABLE t AS SELECT i, repeat(md5(i::VARCHAR), 20) AS x FROM range(200000) r(i)")
        assert any(where.rglob("*")), "it spilled here"
    assert list(folder.iterdir()) == [mine]


def test_a_lake_that_changed_meanwhile_is_an_error_that_says_so(tmp_path: Path) -> None:
    lake = ParquetLake(tmp_path / "lake", tmp_path / "journal")
    lake.add([interaction(1, session="ann")])
    with pytest.raises(LakeError, match="run it again"), window(lake, "a") as db:
        lake.erase("ann", AT + DAY)
        db.execute("SELECT messages FROM interactions").fetchall()
