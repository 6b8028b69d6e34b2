"""The control database on SQLite (WAL): one file, readable by its owner alone."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar, get_args

import msgspec

from pawl.errors import PawlError, StaleWrite
from pawl.rollout.control import Approval, Key, Request, Role
from pawl.rollout.control_schema import MIGRATIONS
from pawl.rollout.route import Route
from pawl.rollout.state import TERMINAL, Rollout, route_of

BUSY_S = 10.0  # how long a write waits for another process's write
GENESIS = "0" * 64
S = TypeVar("S", bound=msgspec.Struct)


class SqliteControl:
    """`ControlStore` on one SQLite file; safe to share between threads and processes.

    A commit is flushed to the disk (`synchronous=FULL`): routes and approvals are few, and losing one to a power
    cut would be worse than its milliseconds. PawlError where the file cannot be used.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.RLock()
        self._own_commits = 0
        with self._mapped():
            path.parent.mkdir(parents=True, exist_ok=True)
            # Made here, because SQLite would create it with the umask's mode; WAL and shm files inherit this mode.
            os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
            path.chmod(0o600)
            self._db = sqlite3.connect(path, timeout=BUSY_S, isolation_level=None, check_same_thread=False)
            self._switch_to_wal()
            self._db.execute("PRAGMA synchronous=FULL")
        self._migrate()

    def close(self) -> None:
        """Let go of the file."""
        with self._lock:
            self._db.close()

    # -- routes --------------------------------------------------------------------------------------------------

    def route(self, agent: str) -> Route | None:
        return self._one("SELECT body FROM routes WHERE agent = ?", (agent,), Route)

    def routes(self) -> list[Route]:
        return self._all("SELECT body FROM routes ORDER BY agent", (), Route)

    def changes(self) -> int:
        """`PRAGMA data_version` moves with other connections' commits only, so own ones are counted beside it."""
        with self._lock, self._mapped():
            (foreign,) = self._db.execute("PRAGMA data_version").fetchone()
            return (int(foreign) << 32) + self._own_commits

    def put_route(self, route: Route) -> Route:
        with self._write() as db:
            current = self._route_revision(db, route.agent)
            if route.revision != current:
                raise StaleWrite(
                    f"the route of {route.agent} is at revision {current}, not {route.revision}: read it again"
                )
            return self._write_route(db, route, current)

    @staticmethod
    def _route_revision(db: sqlite3.Connection, agent: str) -> int:
        row = db.execute("SELECT revision FROM routes WHERE agent = ?", (agent,)).fetchone()
        return int(row[0]) if row else 0

    @staticmethod
    def _write_route(db: sqlite3.Connection, route: Route, current: int) -> Route:
        written = msgspec.structs.replace(route, revision=current + 1)
        db.execute(
            "INSERT INTO routes (agent, revision, body) VALUES (?, ?, ?) "
            "ON CONFLICT (agent) DO UPDATE SET revision = excluded.revision, body = excluded.body",
            (written.agent, written.revision, _encode(written)),
        )
        return written

    # -- rollouts ------------------------------------------------------------------------------------------------

    def rollout(self, rollout_id: str) -> Rollout | None:
        return self._one("SELECT body FROM rollouts WHERE id = ?", (rollout_id,), Rollout)

    def rollouts(self, agent: str | None = None) -> list[Rollout]:
        return self._all(
            "SELECT body FROM rollouts WHERE agent = ?1 OR ?1 IS NULL ORDER BY opened_at DESC, rowid DESC",
            (agent,),
            Rollout,
        )

    def open_rollout(self, agent: str) -> Rollout | None:
        return self._one("SELECT body FROM rollouts WHERE agent = ? AND open = 1", (agent,), Rollout)

    def save_rollout(self, rollout: Rollout) -> Rollout:
        """A finished rollout is never written again: it would take the route from the one that followed it."""
        with self._write() as db:
            row = db.execute("SELECT revision, open FROM rollouts WHERE id = ?", (rollout.id,)).fetchone()
            current, is_open = (int(row[0]), bool(row[1])) if row else (0, True)
            if rollout.revision != current:
                raise StaleWrite(
                    f"rollout {rollout.id} is at revision {current}, not {rollout.revision}: read it again and retry"
                )
            if not is_open:
                raise StaleWrite(f"rollout {rollout.id} has ended: open a new one")
            other = db.execute(
                "SELECT id FROM rollouts WHERE agent = ? AND open = 1 AND id <> ?", (rollout.agent, rollout.id)
            ).fetchone()
            if other:
                raise StaleWrite(f"{rollout.agent} has an open rollout ({other[0]}): finish it or roll it back first")
            saved = msgspec.structs.replace(rollout, revision=current + 1)
            db.execute(
                "INSERT INTO rollouts (id, agent, revision, open, opened_at, body) VALUES (?, ?, ?, ?, ?, ?) "
                "ON CONFLICT (id) DO UPDATE SET revision = excluded.revision, open = excluded.open, "
                "body = excluded.body",
                (saved.id, saved.agent, saved.revision, saved.stage not in TERMINAL, saved.opened_at, _encode(saved)),
            )
            self._write_route(db, route_of(saved), self._route_revision(db, saved.agent))
            return saved

    # -- approvals -----------------------------------------------------------------------------------------------

    def ask(self, request: Request) -> None:
        """A request for the same version replaces the earlier one (its evidence or its expiry changed)."""
        with self._write() as db:
            db.execute(
                "INSERT INTO requests (agent, version, asked_at, body) VALUES (?, ?, ?, ?) "
                "ON CONFLICT (agent, version) DO UPDATE SET asked_at = excluded.asked_at, body = excluded.body",
                (request.agent, request.version, request.asked_at, _encode(request)),
            )

    def request(self, agent: str, version: str) -> Request | None:
        return self._one("SELECT body FROM requests WHERE agent = ? AND version = ?", (agent, version), Request)

    def requests(self) -> list[Request]:
        """Newest first."""
        return self._all("SELECT body FROM requests ORDER BY asked_at DESC, rowid DESC", (), Request)

    def record_approval(self, approval: Approval) -> None:
        """Recording the same approval twice changes nothing; another one under its id is a StaleWrite."""
        with self._write() as db:
            row = db.execute("SELECT body FROM approvals WHERE id = ?", (approval.id,)).fetchone()
            if row and msgspec.json.decode(row[0], type=Approval) != approval:
                raise StaleWrite(f"approval {approval.id} is recorded with other content: give the new one its own id")
            if not row:
                db.execute(
                    "INSERT INTO approvals (id, agent, version, at, body) VALUES (?, ?, ?, ?, ?)",
                    (approval.id, approval.agent, approval.version, approval.at, _encode(approval)),
                )

    def approvals(self, agent: str, version: str) -> list[Approval]:
        """In the order in which they were given."""
        query = "SELECT body FROM approvals WHERE agent = ? AND version = ? ORDER BY at, rowid"
        return self._all(query, (agent, version), Approval)

    def spend_code(self, nonce: str, at: float) -> bool:
        with self._write() as db:
            return db.execute("INSERT OR IGNORE INTO spent_codes VALUES (?, ?)", (nonce, at)).rowcount == 1

    def reject_adapter(self, sha256: str, agent: str, reason: str, at: float) -> None:
        """The first reason stays."""
        with self._write() as db:
            db.execute("INSERT OR IGNORE INTO rejections VALUES (?, ?, ?, ?)", (sha256, agent, reason, at))

    def rejection(self, sha256: str) -> str | None:
        row = self._row("SELECT reason FROM rejections WHERE sha256 = ?", (sha256,))
        return str(row[0]) if row else None

    # -- secrets and keys ----------------------------------------------------------------------------------------

    def secret(self, name: str) -> bytes:
        row = self._row("SELECT value FROM secrets WHERE name = ?", (name,))
        if row is None:
            with self._write() as db:
                db.execute("INSERT OR IGNORE INTO secrets VALUES (?, ?)", (name, secrets.token_bytes(32)))
            row = self._row("SELECT value FROM secrets WHERE name = ?", (name,))
        assert row is not None
        return bytes(row[0])

    def create_key(self, role: Role, name: str) -> tuple[Key, str]:
        if role not in get_args(Role):
            raise PawlError(f"{role!r} is no role; roles are: {', '.join(get_args(Role))}")
        secret = f"pawl_{secrets.token_urlsafe(32)}"
        key = Key(id=f"key-{secrets.token_hex(6)}", role=role, name=name)
        with self._write() as db:
            db.execute(
                "INSERT INTO keys (id, role, name, sha256) VALUES (?, ?, ?, ?)", (key.id, role, name, _digest(secret))
            )
        return key, secret

    def find_key(self, secret: str) -> Key | None:
        """None for an unknown key and for a revoked one."""
        row = self._row("SELECT id, role, name FROM keys WHERE sha256 = ? AND revoked = 0", (_digest(secret),))
        return Key(id=row[0], role=row[1], name=row[2]) if row else None

    def keys(self) -> list[Key]:
        """Oldest first."""
        rows = self._rows("SELECT id, role, name, revoked FROM keys ORDER BY rowid", ())
        return [Key(id=i, role=role, name=name, revoked=bool(revoked)) for i, role, name, revoked in rows]

    def revoke_key(self, key_id: str) -> bool:
        """False where there is no such key, or it was revoked before."""
        with self._write() as db:
            return db.execute("UPDATE keys SET revoked = 1 WHERE id = ? AND revoked = 0", (key_id,)).rowcount == 1

    # -- audit ---------------------------------------------------------------------------------------------------

    def audit(self, event: str, by: str, detail: dict[str, Any], at: float) -> None:
        with self._write() as db:
            row = db.execute("SELECT seq, hash FROM audit ORDER BY seq DESC LIMIT 1").fetchone()
            seq, before = (int(row[0]) + 1, str(row[1])) if row else (1, GENESIS)
            body = json.dumps(detail, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
            at = float(at)  # an int would be hashed as "2" and come back from its REAL column as "2.0"
            link = _link(before, seq, at, event, by, body)
            db.execute("INSERT INTO audit VALUES (?, ?, ?, ?, ?, ?)", (seq, at, event, by, body, link))

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

    # -- plumbing ------------------------------------------------------------------------------------------------

    @contextmanager
    def _mapped(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as e:
            raise PawlError(
                f"the control database {self._path} cannot be used ({e}): check the disk, the file's owner, "
                "and that no other program holds it locked"
            ) from e

    @contextmanager
    def _write(self) -> Iterator[sqlite3.Connection]:
        """One transaction that holds the write lock from its start, so that what it reads is still true at commit."""
        with self._lock, self._mapped():
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield self._db
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise
            self._own_commits += 1

    def _rows(self, query: str, args: tuple[Any, ...]) -> list[tuple[Any, ...]]:
        with self._lock, self._mapped():
            return self._db.execute(query, args).fetchall()

    def _row(self, query: str, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
        rows = self._rows(query, args)
        return rows[0] if rows else None

    def _all(self, query: str, args: tuple[Any, ...], kind: type[S]) -> list[S]:
        return [_decode(body, kind) for (body,) in self._rows(query, args)]

    def _one(self, query: str, args: tuple[Any, ...], kind: type[S]) -> S | None:
        row = self._row(query, args)
        return _decode(row[0], kind) if row else None

    def _switch_to_wal(self) -> None:
        # SQLite does not wait for its lock here when two processes open a new file at once.
        give_up = time.monotonic() + BUSY_S
        while True:
            try:
                self._db.execute("PRAGMA journal_mode=WAL")
                return
            except sqlite3.OperationalError:
                if time.monotonic() > give_up:
                    raise
                time.sleep(0.02)

    def _migrate(self) -> None:
        with self._write() as db:
            (done,) = db.execute("PRAGMA user_version").fetchone()
            if done > len(MIGRATIONS):
                raise PawlError(f"{self._path} was written by a newer Pawl (schema {done}): install that version")
            for number, statements in enumerate(MIGRATIONS[done:], start=done + 1):
                for statement in statements:
                    db.execute(statement)
                db.execute(f"PRAGMA user_version = {number}")


def _encode(value: msgspec.Struct) -> bytes:
    # The rollout's spec is a pydantic model, which msgspec passes to the hook.
    return msgspec.json.encode(value, enc_hook=lambda spec: spec.model_dump(mode="json"))


def _decode(body: bytes, kind: type[S]) -> S:
    return msgspec.json.decode(body, type=kind, dec_hook=_spec)


def _spec(model: Any, data: Any) -> Any:
    return model.model_validate(data)


def _digest(secret: str) -> str:
    # A plain hash is right here: the secret is 256 random bits, so there is nothing to guess that salt or slow
    # hashing would make harder, and every request looks its key up.
    return hashlib.sha256(secret.encode()).hexdigest()


def _link(before: str, seq: int, at: float, event: str, by: str, detail: str) -> str:
    entry = json.dumps([seq, at, event, by, detail], ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256((before + entry).encode()).hexdigest()
