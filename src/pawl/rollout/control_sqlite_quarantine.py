"""The control database on SQLite: rows that training leaves out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from pawl.rollout.control import Quarantined
from pawl.rollout.control_sqlite_file import SqliteFile


class SqliteQuarantine(SqliteFile):
    """What failed a critical check, by id."""

    def quarantine(self, table: str, agent: str, rows: Mapping[str, str], at: float) -> int:
        """The first reason stays while a row is held."""
        with self._write() as db:
            return db.executemany(
                "INSERT OR IGNORE INTO quarantine (kind, row, agent, rule, at) VALUES (?, ?, ?, ?, ?)",
                [(table, row, agent, rule, at) for row, rule in rows.items()],
            ).rowcount

    def quarantined(self, agent: str | None = None) -> list[Quarantined]:
        query = (
            "SELECT kind, row, agent, rule, at, released_at, released_by FROM quarantine "
            "WHERE released_at IS NULL AND (agent = ?1 OR ?1 IS NULL) ORDER BY at, rowid"
        )
        return [Quarantined(*row) for row in self._rows(query, (agent,))]

    def release(self, table: str, rows: Iterable[str], by: str, at: float) -> int:
        with self._write() as db:
            return db.executemany(
                "UPDATE quarantine SET released_at = ?, released_by = ? "
                "WHERE kind = ? AND row = ? AND released_at IS NULL",
                [(at, by, table, row) for row in rows],
            ).rowcount
