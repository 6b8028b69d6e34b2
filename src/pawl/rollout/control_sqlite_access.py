"""The control database on SQLite: secrets, keys, spending, and the audit log."""

from __future__ import annotations

import hashlib
import json
import secrets
import sqlite3
import time
from collections.abc import Sequence
from typing import Any, get_args

from pawl.errors import PawlError
from pawl.fleet.limits import KeyTerms
from pawl.rollout.control import AuditEntry, Key, Role, Spent
from pawl.rollout.control_sqlite_file import SqliteFile
from pawl.rollout.state import AUTOMATION

GENESIS = "0" * 64


class SqliteAccess(SqliteFile):
    """Who may do what, what it cost, and who did what."""

    def secret(self, name: str) -> bytes:
        row = self._row("SELECT value FROM secrets WHERE name = ?", (name,))
        if row is None:
            with self._write() as db:
                db.execute("INSERT OR IGNORE INTO secrets VALUES (?, ?)", (name, secrets.token_bytes(32)))
            row = self._row("SELECT value FROM secrets WHERE name = ?", (name,))
        assert row is not None
        return bytes(row[0])

    def create_key(self, role: Role, name: str, terms: KeyTerms = KeyTerms()) -> tuple[Key, str]:  # noqa: B008 - frozen
        """The secret is not kept: only its digest is."""
        if role not in get_args(Role):
            raise PawlError(f"{role!r} is no role; roles are: {', '.join(get_args(Role))}")
        if name in AUTOMATION:  # what a person of that name did would pass for what automation did
            raise PawlError(f"{name!r} is what automation signs with; give the key another name")
        secret = _new_secret()
        key = Key(id=f"key-{secrets.token_hex(6)}", role=role, name=name, terms=terms)
        with self._write() as db:
            db.execute(
                "INSERT INTO keys (id, role, name, terms) VALUES (?, ?, ?, ?)",
                (key.id, role, name, terms.model_dump_json()),
            )
            db.execute("INSERT INTO key_secrets VALUES (?, ?, NULL)", (_digest(secret), key.id))
        return key, secret

    def rotate_key(self, key_id: str, old_until: float) -> str | None:
        secret = _new_secret()
        with self._write() as db:
            if not db.execute("SELECT 1 FROM keys WHERE id = ? AND revoked = 0", (key_id,)).fetchone():
                return None
            db.execute(
                "UPDATE key_secrets SET expires = MIN(COALESCE(expires, ?1), ?1) WHERE key_id = ?2", (old_until, key_id)
            )
            db.execute("INSERT INTO key_secrets VALUES (?, ?, NULL)", (_digest(secret), key_id))
        return secret

    def find_key(self, secret: str) -> Key | None:
        query = (
            "SELECT k.id, k.role, k.name, k.revoked, k.terms FROM key_secrets s JOIN keys k ON k.id = s.key_id "
            "WHERE s.sha256 = ? AND k.revoked = 0 AND (s.expires IS NULL OR s.expires > ?)"
        )
        row = self._row(query, (_digest(secret), time.time()))
        return _key(row) if row else None

    def keys(self) -> list[Key]:
        """Oldest first."""
        return [_key(row) for row in self._rows("SELECT id, role, name, revoked, terms FROM keys ORDER BY rowid", ())]

    def revoke_key(self, key_id: str) -> bool:
        """False where there is no such key, or it was revoked before."""
        with self._write() as db:
            return db.execute("UPDATE keys SET revoked = 1 WHERE id = ? AND revoked = 0", (key_id,)).rowcount == 1

    # -- spending ------------------------------------------------------------------------------------------------

    def spend(self, rows: Sequence[Spent]) -> None:
        with self._write() as db:
            db.executemany(
                "INSERT INTO spending VALUES (?, ?, ?, ?, ?) ON CONFLICT (scope, period) DO UPDATE SET "
                "usd = usd + excluded.usd, tokens = tokens + excluded.tokens, requests = requests + excluded.requests",
                [(r.scope, r.period, r.usd, r.tokens, r.requests) for r in rows],
            )

    def spending(self, periods: Sequence[str]) -> list[Spent]:
        marks = ", ".join("?" * len(periods))
        query = f"SELECT scope, period, usd, tokens, requests FROM spending WHERE period IN ({marks})"  # noqa: S608 - marks
        return [Spent(*row) for row in self._rows(query, tuple(periods))]

    # -- audit ---------------------------------------------------------------------------------------------------

    def audit(self, event: str, by: str, detail: dict[str, Any], at: float) -> None:
        self.audit_many([AuditEntry(event, by, detail, at)])

    def audit_many(self, entries: Sequence[AuditEntry]) -> None:
        with self._write() as db:
            append_audit(db, entries)

    def audit_log(self) -> list[dict[str, Any]]:
        """Oldest first: seq, at, event, by, detail, hash."""
        rows = self._rows("SELECT seq, at, event, by, detail, hash FROM audit ORDER BY seq", ())
        return [
            {"seq": seq, "at": at, "event": event, "by": by, "detail": json.loads(detail), "hash": link}
            for seq, at, event, by, detail, link in rows
        ]

    def verify_audit(self) -> str | None:
        """Finds changed, removed and inserted rows, a cut-off end too (SQLite remembers the last number given)."""
        before, expected = GENESIS, 1
        for seq, at, event, by, detail, link in self._rows(
            "SELECT seq, at, event, by, detail, hash FROM audit ORDER BY seq", ()
        ):
            if seq != expected:
                return f"entry {expected} is missing"
            if link != _link(before, seq, at, event, by, detail):
                return f"entry {seq} ({event}) does not match its hash: it, or one before it, was changed"
            before, expected = link, seq + 1
        row = self._row("SELECT seq FROM sqlite_sequence WHERE name = 'audit'", ())
        last = int(row[0]) if row else 0
        return None if last < expected else f"entries {expected} to {last} are missing"


def append_audit(db: sqlite3.Connection, entries: Sequence[AuditEntry]) -> None:
    """Chain entries to the log, in the transaction that is open."""
    row = db.execute("SELECT seq, hash FROM audit ORDER BY seq DESC LIMIT 1").fetchone()
    seq, link = (int(row[0]), str(row[1])) if row else (0, GENESIS)
    for entry in entries:
        body = json.dumps(entry.detail, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
        at = float(entry.at)  # an int would be hashed as "2" and come back from its REAL column as "2.0"
        seq += 1
        link = _link(link, seq, at, entry.event, entry.by, body)
        db.execute("INSERT INTO audit VALUES (?, ?, ?, ?, ?, ?)", (seq, at, entry.event, entry.by, body, link))


def _key(row: tuple[Any, ...]) -> Key:
    return Key(row[0], row[1], row[2], revoked=bool(row[3]), terms=KeyTerms.model_validate_json(row[4]))


def _new_secret() -> str:
    return f"pawl_{secrets.token_urlsafe(32)}"


def _digest(secret: str) -> str:
    # A plain hash is right here: the secret is 256 random bits, so there is nothing to guess that salt or slow
    # hashing would make harder, and every request looks its key up.
    return hashlib.sha256(secret.encode()).hexdigest()


def _link(before: str, seq: int, at: float, event: str, by: str, detail: str) -> str:
    entry = json.dumps([seq, at, event, by, detail], ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256((before + entry).encode()).hexdigest()
