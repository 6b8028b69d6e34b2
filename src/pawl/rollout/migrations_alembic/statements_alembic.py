"""Runs a revision's statements on whatever database Alembic is at."""

from __future__ import annotations

from collections.abc import Iterable

from alembic import context, op

from pawl.rollout.control_schema import MIGRATIONS, REVISIONS, Kind


def up(revision: str) -> None:
    """Bring the schema to it from the one before."""
    kind = _kind()
    if revision == "0001" and kind == "sqlite":
        _run(statement for step in MIGRATIONS[_steps_done() :] for statement in step)
        return
    _run(REVISIONS[revision][kind].up)


def down(revision: str) -> None:
    """Bring the schema back to the one before it."""
    _run(REVISIONS[revision][_kind()].down)


def _kind() -> Kind:
    return "sqlite" if op.get_context().dialect.name == "sqlite" else "postgresql"


def _steps_done() -> int:
    """Of the numbered schemas that SQLite files had before they had revisions."""
    if context.is_offline_mode():
        return 0
    return int(op.get_bind().exec_driver_sql("PRAGMA user_version").scalar_one())


def _run(statements: Iterable[str]) -> None:
    for statement in statements:
        op.execute(statement)
