"""The control database in SQL: rows that training leaves out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from pawl.rollout.control import Quarantined
from pawl.rollout.control_sql_store import SqlStore, Transaction


class SqlQuarantine(SqlStore):
    """What failed a critical check, by id."""

    def quarantine(self, table: str, agent: str, rows: Mapping[str, str], at: float) -> int:
        """The first reason stays while a row is held."""
        with self.transaction() as db:
            before = _held(db)
            db.executemany(
                "INSERT INTO quarantine (kind, row, agent, rule, at) VALUES (?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
                [(table, row, agent, rule, at) for row, rule in rows.items()],
            )
            return _held(db) - before

    def quarantined(self, agent: str | None = None) -> list[Quarantined]:
        query = (
            "SELECT kind, row, agent, rule, at, released_at, released_by FROM quarantine "
            "WHERE released_at IS NULL AND (? IS NULL OR agent = ?) ORDER BY at, rowid"
        )
        return [Quarantined(*row) for row in self.rows(query, (agent, agent))]

    def release(self, table: str, rows: Iterable[str], by: str, at: float) -> int:
        with self.transaction() as db:
            before = _held(db)
            db.executemany(
                "UPDATE quarantine SET released_at = ?, released_by = ? "
                "WHERE kind = ? AND row = ? AND released_at IS NULL",
                [(at, by, table, row) for row in rows],
            )
            return before - _held(db)


def _held(db: Transaction) -> int:
    # Counted in the transaction, which is the only writer: what many statements did together no driver tells alike.
    return int(db.execute("SELECT COUNT(*) FROM quarantine WHERE released_at IS NULL").fetchone()[0])
