"""The control database on SQLite."""

from __future__ import annotations

from pawl.rollout.control_sql import SqlControl
from pawl.rollout.control_sqlite_file import SqliteFile


class SqliteControl(SqliteFile, SqlControl):
    """`ControlStore` on one SQLite file."""
