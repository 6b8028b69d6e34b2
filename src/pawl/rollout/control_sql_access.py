"""The control database in SQL: secrets, keys, and what was spent."""

from __future__ import annotations

import hashlib
import secrets
import time
from collections.abc import Sequence
from typing import Any, get_args

from pawl.errors import PawlError
from pawl.fleet.limits import KeyTerms
from pawl.rollout.control import SCHEDULE, Key, Role, Spent
from pawl.rollout.control_sql_audit import SqlAudit
from pawl.rollout.state import AUTOMATION


class SqlAccess(SqlAudit):
    """Who may do what, and what it cost."""

    def secret(self, name: str) -> bytes:
        row = self.row("SELECT value FROM secrets WHERE name = ?", (name,))
        if row is None:
            with self.transaction() as db:
                db.execute("INSERT INTO secrets VALUES (?, ?) ON CONFLICT DO NOTHING", (name, secrets.token_bytes(32)))
            row = self.row("SELECT value FROM secrets WHERE name = ?", (name,))
        assert row is not None
        return bytes(row[0])

    def create_key(self, role: Role, name: str, terms: KeyTerms = KeyTerms()) -> tuple[Key, str]:  # noqa: B008 - frozen
        """The secret is not kept: only its digest is."""
        if role not in get_args(Role):
            raise PawlError(f"{role!r} is no role; roles are: {', '.join(get_args(Role))}")
        if name in (*AUTOMATION, SCHEDULE):  # what a person of that name did would pass for what automation did
            raise PawlError(f"{name!r} is what automation signs with; give the key another name")
        secret = _new_secret()
        key = Key(id=f"key-{secrets.token_hex(6)}", role=role, name=name, terms=terms)
        with self.transaction() as db:
            db.execute(
                "INSERT INTO keys (id, role, name, terms) VALUES (?, ?, ?, ?)",
                (key.id, role, name, terms.model_dump_json()),
            )
            db.execute("INSERT INTO key_secrets VALUES (?, ?, NULL)", (_digest(secret), key.id))
        return key, secret

    def rotate_key(self, key_id: str, old_until: float) -> str | None:
        secret = _new_secret()
        with self.transaction() as db:
            if not db.execute("SELECT 1 FROM keys WHERE id = ? AND revoked = 0", (key_id,)).fetchone():
                return None
            db.execute(
                "UPDATE key_secrets SET expires = CASE WHEN expires < ? THEN expires ELSE ? END WHERE key_id = ?",
                (old_until, old_until, key_id),
            )
            db.execute("INSERT INTO key_secrets VALUES (?, ?, NULL)", (_digest(secret), key_id))
        return secret

    def find_key(self, secret: str) -> Key | None:
        query = (
            "SELECT k.id, k.role, k.name, k.revoked, k.terms FROM key_secrets s JOIN keys k ON k.id = s.key_id "
            "WHERE s.sha256 = ? AND k.revoked = 0 AND (s.expires IS NULL OR s.expires > ?)"
        )
        row = self.row(query, (_digest(secret), time.time()))
        return _key(row) if row else None

    def keys(self) -> list[Key]:
        """Oldest first."""
        return [_key(row) for row in self.rows("SELECT id, role, name, revoked, terms FROM keys ORDER BY rowid")]

    def revoke_key(self, key_id: str) -> bool:
        """False where there is no such key, or it was revoked before."""
        with self.transaction() as db:
            return db.execute("UPDATE keys SET revoked = 1 WHERE id = ? AND revoked = 0", (key_id,)).rowcount == 1

    # -- spending ------------------------------------------------------------------------------------------------

    def spend(self, rows: Sequence[Spent]) -> None:
        with self.transaction() as db:
            db.executemany(
                "INSERT INTO spending VALUES (?, ?, ?, ?, ?) ON CONFLICT (scope, period) DO UPDATE SET "
                "usd = spending.usd + excluded.usd, tokens = spending.tokens + excluded.tokens, "
                "requests = spending.requests + excluded.requests",
                [(r.scope, r.period, r.usd, r.tokens, r.requests) for r in rows],
            )

    def spending(self, periods: Sequence[str]) -> list[Spent]:
        if not periods:
            return []
        marks = ", ".join("?" * len(periods))
        query = f"SELECT scope, period, usd, tokens, requests FROM spending WHERE period IN ({marks})"  # noqa: S608 - marks
        return [Spent(*row) for row in self.rows(query, tuple(periods))]


def _key(row: tuple[Any, ...]) -> Key:
    return Key(row[0], row[1], row[2], revoked=bool(row[3]), terms=KeyTerms.model_validate_json(row[4]))


def _new_secret() -> str:
    return f"pawl_{secrets.token_urlsafe(32)}"


def _digest(secret: str) -> str:
    # A plain hash is right here: the secret is 256 random bits, so there is nothing to guess that salt or slow
    # hashing would make harder, and every request looks its key up.
    return hashlib.sha256(secret.encode()).hexdigest()
