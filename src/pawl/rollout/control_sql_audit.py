"""The control database in SQL: the audit log, each entry chained to the one before it by its hash."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from typing import Any

from pawl.rollout.control import AuditEntry
from pawl.rollout.control_sql_store import SqlStore, Transaction

GENESIS = "0" * 64
ENTRIES = "SELECT seq, at, event, by, detail, hash FROM audit ORDER BY seq"
HEAD = "SELECT seq, hash FROM audit_head"


class SqlAudit(SqlStore):
    """Who did what."""

    def audit(self, event: str, by: str, detail: dict[str, Any], at: float) -> None:
        self.audit_many([AuditEntry(event, by, detail, at)])

    def audit_many(self, entries: Sequence[AuditEntry]) -> None:
        with self.transaction() as db:
            append_audit(db, entries)

    def audit_log(self) -> list[dict[str, Any]]:
        """Oldest first: seq, at, event, by, detail, hash."""
        return [
            {"seq": seq, "at": at, "event": event, "by": by, "detail": json.loads(detail), "hash": link}
            for seq, at, event, by, detail, link in self.rows(ENTRIES)
        ]

    def verify_audit(self) -> str | None:
        """Finds changed, removed and inserted rows, and a cut-off end too: the database keeps the last number given."""
        head = self.row(HEAD)  # read first: what others add meanwhile lies behind it
        return broken_link(self.rows(ENTRIES), (int(head[0]), str(head[1])) if head else (0, GENESIS))


def broken_link(entries: Iterable[tuple[Any, ...]], head: tuple[int, str]) -> str | None:
    """What is wrong with a chain of (seq, at, event, by, detail, hash), None where it is whole at least up to `head`,
    the last (seq, hash) that was given."""
    before, expected = GENESIS, 1
    for seq, at, event, by, detail, link in entries:
        if seq != expected:
            return f"entry {expected} is missing"
        if link != _link(before, seq, at, event, by, detail):
            return f"entry {seq} ({event}) does not match its hash: it, or one before it, was changed"
        if seq == head[0] and link != head[1]:
            return f"entry {seq} ({event}) is not the one that was written last: the chain was written anew"
        before, expected = link, seq + 1
    return None if head[0] < expected else f"entries {expected} to {head[0]} are missing"


def append_audit(db: Transaction, entries: Sequence[AuditEntry]) -> None:
    """Chain entries to the log, in the transaction that is open."""
    row = db.execute("SELECT seq, hash FROM audit ORDER BY seq DESC LIMIT 1").fetchone()
    seq, link = (int(row[0]), str(row[1])) if row else (0, GENESIS)
    made = []
    for entry in entries:
        body = json.dumps(entry.detail, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
        at = float(entry.at)  # an int would be hashed as "2" and come back from its column as "2.0"
        seq += 1
        link = _link(link, seq, at, entry.event, entry.by, body)
        made.append((seq, at, entry.event, entry.by, body, link))
    db.executemany("INSERT INTO audit VALUES (?, ?, ?, ?, ?, ?)", made)


def _link(before: str, seq: int, at: float, event: str, by: str, detail: str) -> str:
    entry = json.dumps([seq, at, event, by, detail], ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256((before + entry).encode()).hexdigest()
