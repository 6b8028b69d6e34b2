"""One SQLite file (WAL): transactions, reads, errors that say what to do, and the schema it must have."""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from pawl.errors import ControlUnavailable, PawlError
from pawl.rollout.control_schema import CURRENT, REVISIONS, USER_VERSION
from pawl.rollout.control_sql_store import SqlStore, Transaction

BUSY_S = 10.0  # how long a write waits for another process's write


class SqliteFile(SqlStore):
    """Safe to share between threads and processes; readable by its owner alone.

    A commit is flushed to the disk (`synchronous=FULL`): routes and approvals are few, and losing one to a power
    cut would be worse than its milliseconds. ControlUnavailable where the file cannot be used. A file of an earlier
    schema is copied beside itself and brought up.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.RLock()
        with self._mapped():
            path.parent.mkdir(parents=True, exist_ok=True)
            # Made here, because SQLite would create it with the umask's mode; WAL and shm files inherit this mode.
            # Only a file that is not there is opened: POSIX locks are the process's, and closing a descriptor of a file
            # that another connection has open would drop that one's, so that other processes take its log away.
            with suppress(FileExistsError):
                os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
            path.chmod(0o600)
            self._db = sqlite3.connect(path, timeout=BUSY_S, isolation_level=None, check_same_thread=False)
            self._switch_to_wal()
            self._db.execute("PRAGMA synchronous=FULL")
        if not self._is_current():
            # Imported here: Alembic takes a third of a second, and is wanted once in a file's life.
            from pawl.rollout.migrations_alembic.migrate_alembic import Migrations

            Migrations(path).upgrade()

    def close(self) -> None:
        """Let go of the file."""
        with self._lock:
            self._db.close()

    @contextmanager
    def _mapped(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as e:
            raise ControlUnavailable(
                f"the control database {self._path} cannot be used ({e}): check the disk, the file's owner, "
                "and that no other program holds it locked"
            ) from e

    @contextmanager
    def transaction(self) -> Iterator[Transaction]:
        with self._lock, self._mapped():
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield self._db
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise

    def rows(self, query: str, args: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
        with self._lock, self._mapped():
            return self._db.execute(query, args).fetchall()

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

    def _is_current(self) -> bool:
        """Whether the file has today's schema; an empty one is given it."""
        if self._version() == USER_VERSION:
            return True
        with self.transaction() as db:
            if self._version() == 0:
                create(db)
        if self._version() > USER_VERSION:
            raise PawlError(
                f"{self._path} was written by a newer Pawl (schema {self._version()}): install that version, or let it "
                "run `pawl database downgrade` first"
            )
        return self._version() == USER_VERSION

    def _version(self) -> int:
        (found,) = self.rows("PRAGMA user_version")
        return int(found[0])


def create(db: Transaction) -> None:
    """Today's schema in an empty file, as Alembic would make it and in a hundredth of its time."""
    for revision in REVISIONS.values():
        for statement in revision["sqlite"].up:
            db.execute(statement)
    db.execute("CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL, "
               "CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num))")  # fmt: skip
    db.execute("INSERT INTO alembic_version VALUES (?)", (CURRENT,))
