"""One SQLite file (WAL) with migrations: transactions, reads, and errors that say what to do."""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from pawl.errors import PawlError
from pawl.rollout.control_schema import MIGRATIONS

BUSY_S = 10.0  # how long a write waits for another process's write
S = TypeVar("S", bound=msgspec.Struct)


class SqliteFile:
    """Safe to share between threads and processes; readable by its owner alone.

    A commit is flushed to the disk (`synchronous=FULL`): routes and approvals are few, and losing one to a power
    cut would be worse than its milliseconds. PawlError where the file cannot be used.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.RLock()
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

    def _rows(self, query: str, args: tuple[Any, ...]) -> list[tuple[Any, ...]]:
        with self._lock, self._mapped():
            return self._db.execute(query, args).fetchall()

    def _row(self, query: str, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
        rows = self._rows(query, args)
        return rows[0] if rows else None

    def _all(self, query: str, args: tuple[Any, ...], kind: type[S]) -> list[S]:
        return [decode(body, kind) for (body,) in self._rows(query, args)]

    def _one(self, query: str, args: tuple[Any, ...], kind: type[S]) -> S | None:
        row = self._row(query, args)
        return decode(row[0], kind) if row else None

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


def encode(value: msgspec.Struct) -> bytes:
    # The rollout's spec is a pydantic model, which msgspec passes to the hook.
    return msgspec.json.encode(value, enc_hook=lambda spec: spec.model_dump(mode="json"))


def decode(body: bytes, kind: type[S]) -> S:
    return msgspec.json.decode(body, type=kind, dec_hook=_spec)


def _spec(model: Any, data: Any) -> Any:
    return model.model_validate(data)
