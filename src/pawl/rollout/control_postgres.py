"""The control database on PostgreSQL."""

from __future__ import annotations

from pawl.rollout.control_postgres_server import PostgresServer
from pawl.rollout.control_sql import SqlControl


class PostgresControl(PostgresServer, SqlControl):
    """`ControlStore` on one PostgreSQL database. What it promises is SQLite's: one writer at a time, and a commit that
    was acknowledged stays."""
