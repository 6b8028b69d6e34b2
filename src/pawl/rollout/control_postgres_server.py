"""One PostgreSQL database through psycopg2: transactions, reads, lost connections, and no password in what it says."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, NoReturn, TypeVar

import psycopg2
from psycopg2.extensions import connection as Connection
from psycopg2.extensions import cursor as PsycopgCursor
from psycopg2.extensions import parse_dsn
from psycopg2.extras import execute_batch

from pawl.errors import ConfigError, ControlUnavailable, NotAllowed, PawlError
from pawl.rollout.control_schema import CURRENT, REVISIONS
from pawl.rollout.control_sql_store import Cursor, SqlStore, Transaction

WRITER = 0x7061776C  # the advisory lock that whoever writes this database holds: "pawl"
# Each transaction says what it needs, so that neither the server's defaults nor a pooler between change it. READ
# COMMITTED: every statement sees what was committed before it began, so what is read under the lock is the truth.
_BEGIN = (
    "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE; SET LOCAL lock_timeout = '10s'; "
    "SET LOCAL idle_in_transaction_session_timeout = '30s'; SET LOCAL synchronous_commit = on; "
    f"SELECT pg_advisory_xact_lock({WRITER})"
)
# A network that swallows packets is noticed in seconds. What the URL says itself goes first.
_PATIENCE = {
    "connect_timeout": "3",
    "keepalives_idle": "10",
    "keepalives_interval": "5",
    "keepalives_count": "3",
    "tcp_user_timeout": "15000",
    "application_name": "pawl",
}
_MOST_IDLE = 4  # connections
_REST_S = 0.5  # after a connection that failed, no other is tried: many callers would wait in turn
_GONE = {"57P01", "57P02", "57P03", "08000", "08003", "08006", None}  # server shut down, connection lost


R = TypeVar("R")


class PostgresServer(SqlStore):
    """Safe to share between threads, each of which uses a connection of its own, and between processes.

    One writer at a time, by an advisory lock that ends with its transaction or its connection: a writer that dies or
    stands still lets others go on. A connection that was lost is made anew; a read is tried once more, a transaction
    only where none of its statements was sent. ControlUnavailable where the server cannot be reached; ConfigError for
    a URL that is none.
    """

    def __init__(self, url: str) -> None:
        self._parameters = _PATIENCE | parameters(url)
        self._where = shown(self._parameters)
        self._lock = threading.Lock()
        self._idle: list[Connection] = []
        self._owner = os.getpid()
        self._failed: tuple[float, str] | None = None
        self._demand_schema()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._where})"

    def close(self) -> None:
        """Let go of the connections."""
        with self._lock:
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()

    @contextmanager
    def transaction(self) -> Iterator[Transaction]:
        connection = self._begun()
        try:
            with connection.cursor() as cursor:
                yield _Statements(cursor)
                cursor.execute("COMMIT")
        except psycopg2.Error as e:
            self._abandon(connection)
            self._explain(e)
        except BaseException:
            self._abandon(connection)
            raise
        self._keep(connection)

    def rows(self, query: str, args: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
        def read(connection: Connection) -> list[tuple[Any, ...]]:
            with connection.cursor() as cursor:
                cursor.execute(_translated(query), args or None)
                found: list[tuple[Any, ...]] = cursor.fetchall()
                return found

        connection, found = self._first(read)
        self._keep(connection)
        return found

    # -- connections

    def _begun(self) -> Connection:
        def begin(connection: Connection) -> None:
            with connection.cursor() as cursor:
                cursor.execute(_BEGIN)

        return self._first(begin)[0]

    def _first(self, act: Callable[[Connection], R]) -> tuple[Connection, R]:
        """Do the first thing on a connection, on a new one where an idle one turns out to be lost."""
        while True:
            connection, fresh = self._taken()
            try:
                return connection, act(connection)
            except psycopg2.Error as e:
                lost = connection.closed or e.pgcode in _GONE
                self._abandon(connection)
                if lost:
                    self._forget()
                if fresh or not lost:
                    self._explain(e)
            except BaseException:
                self._abandon(connection)
                raise

    def _taken(self) -> tuple[Connection, bool]:
        """A connection, and whether it is new."""
        with self._lock:
            if self._owner != os.getpid():  # a fork must not speak on its parent's connections
                self._idle, self._owner, self._failed = [], os.getpid(), None
            if self._idle:
                return self._idle.pop(), False
            if self._failed is not None and time.monotonic() - self._failed[0] < _REST_S:
                raise ControlUnavailable(self._failed[1])
        try:
            made = connected(self._parameters)
        except ControlUnavailable as e:
            self._failed = (time.monotonic(), str(e))
            raise
        self._failed = None
        return made, True

    def _keep(self, connection: Connection) -> None:
        with self._lock:
            if not connection.closed and len(self._idle) < _MOST_IDLE and self._owner == os.getpid():
                self._idle.append(connection)
                return
        connection.close()

    def _abandon(self, connection: Connection) -> None:
        # Closing ends its transaction and lets go of its lock, whatever state it is in.
        with suppress(psycopg2.Error):
            connection.close()

    def _forget(self) -> None:
        """All idle connections: what one of them lost, all did."""
        self.close()

    # -- what went wrong

    def _explain(self, e: psycopg2.Error) -> NoReturn:
        said = " ".join(str(e).split())
        match e.pgcode:
            case "42501":
                raise NotAllowed(
                    f"the role that {self._where} is used with may not do this ({said}): act with one that may; "
                    "`pawl database grants` tells who may what"
                ) from e
            case "55P03":
                raise ControlUnavailable(
                    f"the control database {self._where}: somebody has been writing for 10 s: try again"
                ) from e
            case "42P01":
                raise PawlError(_no_schema(self._where)) from e
        raise ControlUnavailable(
            f"the control database {self._where} failed ({said}): see whether the server is up and may be written; "
            "whether a commit that was under way took place, a fresh look tells"
        ) from e

    def _demand_schema(self) -> None:
        try:
            found = [str(row[0]) for row in self.rows("SELECT version_num FROM alembic_version")]
        except PawlError as e:
            if isinstance(e, ControlUnavailable | NotAllowed):
                raise
            raise PawlError(_no_schema(self._where)) from None
        if found == [CURRENT]:
            return
        if not found:
            raise PawlError(_no_schema(self._where))
        if found[0] not in REVISIONS:
            raise PawlError(f"{self._where} was written by a newer Pawl (schema {found[0]}): install that version")
        raise PawlError(
            f"the control database {self._where} has schema {found[0]}, this Pawl wants {CURRENT}: back it up "
            "(pg_dump), then `pawl database upgrade` as its owner"
        )


class _Statements:
    """A cursor that takes `?`."""

    def __init__(self, cursor: PsycopgCursor) -> None:
        self._cursor = cursor

    def execute(self, query: str, args: Sequence[Any] = (), /) -> Cursor:
        self._cursor.execute(_translated(query), args or None)
        cursor: Cursor = self._cursor
        return cursor

    def executemany(self, query: str, rows: Iterable[Sequence[Any]], /) -> None:
        execute_batch(self._cursor, _translated(query), list(rows), page_size=500)


def _translated(query: str) -> str:
    return query.replace("?", "%s")


def _no_schema(where: str) -> str:
    return f"the control database {where} has no schema yet: `pawl database upgrade` as its owner makes it"


def parameters(url: str) -> dict[str, str]:
    """What libpq would take from a URL. ConfigError where it is none; its text is not repeated, since it may hold a
    password."""
    with suppress(psycopg2.Error):
        if url.startswith(("postgresql://", "postgres://")):
            return dict(parse_dsn(url))
    raise ConfigError(
        "PAWL_CONTROL_URL",
        ["it is not like postgresql://USER@HOST:5432/DATABASE?sslmode=verify-full; percent-encode what is neither a "
         "letter nor a digit in a password, or better give it by PGPASSWORD or a passfile"],
    )  # fmt: skip


def shown(given: dict[str, str]) -> str:
    """Where that is, for people: no password."""
    host = given.get("host") or os.environ.get("PGHOST") or "local socket"
    user = given.get("user") or os.environ.get("PGUSER") or ""
    database = given.get("dbname") or os.environ.get("PGDATABASE") or user
    port = f":{given['port']}" if "port" in given else ""
    return f"postgresql://{user}{'@' if user else ''}{host}{port}/{database}"


def connected(given: dict[str, str]) -> Connection:
    """A connection that commits each statement. ControlUnavailable where there is none."""
    try:
        made = psycopg2.connect(**given)
    except psycopg2.Error as e:
        said = " ".join(str(e).split())
        if password := given.get("password"):
            said = said.replace(password, "***")
        raise ControlUnavailable(f"the control database {shown(given)} cannot be reached ({said})") from None
    made.autocommit = True
    return made
