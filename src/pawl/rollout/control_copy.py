"""Moves a control database to another: all rows or none, with the audit chain checked on both sides."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from pawl.errors import PawlError
from pawl.rollout.control import AuditEntry
from pawl.rollout.control_sql_audit import ENTRIES, GENESIS, HEAD, append_audit, broken_link
from pawl.rollout.control_sql_store import SqlStore, Transaction

# Columns in the order of their tables; rows in the order in which they came.
TABLES: Mapping[str, tuple[str, str]] = {
    "routes": ("agent, revision, body", "agent"),
    "rollouts": ("id, agent, revision, open, opened_at, body", "rowid"),
    "requests": ("agent, version, asked_at, body", "rowid"),
    "approvals": ("id, agent, version, at, body", "rowid"),
    "spent_codes": ("nonce, at", "nonce"),
    "rejections": ("sha256, agent, reason, at", "sha256"),
    "secrets": ("name, value", "name"),
    "keys": ("id, role, name, revoked, terms", "rowid"),
    "key_secrets": ("sha256, key_id, expires", "sha256"),
    "spending": ("scope, period, usd, tokens, requests", "scope, period"),
    "pointers": ("name, revision, value", "name"),
    "quarantine": ("kind, row, agent, rule, at, released_at, released_by", "rowid"),
    "audit": ("seq, at, event, by, detail, hash", "seq"),
}


class Copied(NamedTuple):
    """What was moved."""

    rows: dict[str, int]  # by table
    already: bool  # the same rows were there before


def copy(
    source: SqlStore, target: SqlStore, told: AuditEntry, say: Callable[[str, int], None] = lambda table, rows: None
) -> Copied:
    """Everything of `source` into `target`, which must be empty or hold it already; `told` is added to its audit log.

    One transaction, while nobody can write either: interrupted at any moment it leaves an empty target, and may be run
    again. PawlError where the chain of the source is broken, or the target holds something else.
    """
    with source.transaction() as old, target.transaction() as new:
        if broken := _broken(old):
            raise PawlError(f"the audit log of the source was changed ({broken}): look into that before it is moved")
        counts: dict[str, int] = {}
        held = {table: _rows(new, table) for table in TABLES}
        there = sum(len(rows) for rows in held.values())
        for table, (columns, _) in TABLES.items():
            rows = _rows(old, table)
            counts[table] = len(rows)
            if there:
                _demand_same(table, rows, held[table])
                continue
            marks = ", ".join("?" for _ in columns.split(", "))
            # Names and columns are those above.
            new.executemany(f"INSERT INTO {table} ({columns}) VALUES ({marks})", rows)  # noqa: S608
            if _rows(new, table) != rows:
                raise PawlError(f"the table {table} did not arrive as it was: nothing was moved")
            say(table, len(rows))
        if broken := _broken(new):
            raise PawlError(f"the audit log did not arrive as it was ({broken}): nothing was moved")
        if not there:
            detail = {**told.detail, "rows": counts}
            append_audit(new, [AuditEntry(told.event, told.by, detail, told.at)])
    return Copied(counts, already=bool(there))


def rehearsed(source: SqlStore, target: SqlStore) -> Copied:
    """What `copy` would do now; reads only, and keeps nobody from writing. PawlError where `copy` would refuse."""
    if broken := broken_link(source.rows(ENTRIES), _head(source.rows(HEAD))):
        raise PawlError(f"the audit log of the source was changed ({broken}): look into that before it is moved")
    rows = {table: _read(source.rows(_selected(table)), table) for table in TABLES}
    held = {table: _read(target.rows(_selected(table)), table) for table in TABLES}
    there = any(held.values())
    if there:
        for table in TABLES:
            _demand_same(table, rows[table], held[table])
    return Copied({table: len(found) for table, found in rows.items()}, already=there)


def _rows(db: Transaction, table: str) -> list[tuple[Any, ...]]:
    return _read(db.execute(_selected(table)).fetchall(), table)


def _selected(table: str) -> str:
    columns, order = TABLES[table]
    return f"SELECT {columns} FROM {table} ORDER BY {order}"  # noqa: S608 - names from above


def _read(found: list[tuple[Any, ...]], table: str) -> list[tuple[Any, ...]]:
    order = TABLES[table][1]
    rows = [tuple(bytes(v) if isinstance(v, memoryview) else v for v in row) for row in found]
    # Texts are sorted by each database's own rules.
    return rows if order in ("rowid", "seq") else sorted(rows)


def _demand_same(table: str, wanted: list[tuple[Any, ...]], held: list[tuple[Any, ...]]) -> None:
    if not set(wanted) <= set(held):
        raise PawlError(
            f"the target holds other rows ({table}): copy into an empty database, as `pawl database upgrade` makes it"
        )


def _broken(db: Transaction) -> str | None:
    return broken_link(db.execute(ENTRIES).fetchall(), _head(db.execute(HEAD).fetchall()))


def _head(found: list[tuple[Any, ...]]) -> tuple[int, str]:
    return (int(found[0][0]), str(found[0][1])) if found else (0, GENESIS)
