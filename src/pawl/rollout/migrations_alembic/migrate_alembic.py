"""Brings the control database's schema up and down by Alembic, in one transaction each time."""

from __future__ import annotations

import io
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from sqlalchemy import Connection, Engine, NullPool, create_engine, event, exc

from pawl.errors import ControlUnavailable, PawlError
from pawl.rollout.control_schema import CURRENT, FIRST, REVISIONS, Kind

_HERE = Path(__file__).resolve().parent


class Migrations:
    """Of the SQLite file at a path, or of the PostgreSQL database at a URL."""

    def __init__(self, place: Path | str) -> None:
        self._path = place if isinstance(place, Path) else None
        self._url = place if isinstance(place, str) else ""
        self.kind: Kind = "sqlite" if self._path else "postgresql"

    def current(self) -> str | None:
        """The revision that it has; None for one that was never used."""
        if self._path is not None and not self._path.exists():
            return None
        with self._connection() as connection:
            return self._revision(connection)

    def upgrade(self, to: str = CURRENT) -> Path | None:
        """Bring it up; returns where a SQLite file was copied to before. Does nothing where it is up already."""
        _known(to)
        return self._move(to, lambda config: command.upgrade(config, to))

    def downgrade(self, to: str) -> Path | None:
        """Bring it back, for an earlier Pawl. PawlError where it was never there."""
        _known(to)
        found = self.current()
        if found is None or found <= to:
            raise PawlError(f"the control database has schema {found or 'none'}: that is no way back to {to}")
        return self._move(to, lambda config: command.downgrade(config, to))

    def sql(self, start: str | None, to: str) -> str:
        """The statements from one revision (None: an empty database) to another, for whoever runs them by hand."""
        _known(to)
        text = io.StringIO()
        config = self._config(text)
        back = start is not None and to < start
        go = command.downgrade if back else command.upgrade
        go(config, f"{start or 'base'}:{to}", sql=True)
        return text.getvalue()

    def _move(self, to: str, act: Callable[[Config], None]) -> Path | None:
        if self._path is not None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
        found = self.current()
        if found is not None and found > CURRENT:
            raise PawlError(f"the control database was written by a newer Pawl (schema {found}): install that version")
        if found == to:
            return None
        copy = self._backed_up(found) if self._path is not None and found is not None else None
        with self._connection() as connection:
            self._wait_for_writers(connection)
            config = self._config(io.StringIO())
            config.attributes["connection"] = connection
            act(config)
        return copy

    def _config(self, out: io.StringIO) -> Config:
        config = Config(stdout=out, output_buffer=out)
        config.set_main_option("script_location", str(_HERE).replace("%", "%%"))
        config.attributes["kind"] = self.kind
        return config

    def _revision(self, connection: Connection) -> str | None:
        found = MigrationContext.configure(connection).get_current_revision()
        if found is None and self._path is not None:
            # Files from before revisions had names count their schemas.
            done = int(connection.exec_driver_sql("PRAGMA user_version").scalar_one())
            found = FIRST if done else None
        return found

    def _backed_up(self, found: str | None) -> Path:
        """A copy of the file beside it, the owner's alone."""
        assert self._path is not None
        stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
        names = (f"{self._path.name}.{found}-{stamp}{more}" for more in ("", *(f"-{n}" for n in range(2, 100))))
        copy = next(p for p in map(self._path.with_name, names) if not p.exists())
        copy.touch(0o600, exist_ok=False)
        source, target = sqlite3.connect(self._path), sqlite3.connect(copy)
        try:
            source.backup(target)
            target.execute("PRAGMA journal_mode = DELETE")  # one file, to be put away
        finally:
            source.close()
            target.close()
        return copy

    def _wait_for_writers(self, connection: Connection) -> None:
        if self._path is None:
            from pawl.rollout.control_postgres_server import WRITER

            connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({WRITER})")

    @contextmanager
    def _connection(self) -> Iterator[Connection]:
        """One in a transaction, which is committed at the end."""
        engine = _sqlite(self._path) if self._path is not None else _postgresql(self._url)
        try:
            with engine.begin() as connection:
                yield connection
        except exc.DBAPIError as e:
            said = " ".join(str(e.orig).split())
            raise ControlUnavailable(
                f"the schema of the control database could not be changed ({said}): nothing of it was kept; as its "
                "owner, and with nobody writing for minutes, try again"
            ) from None
        finally:
            engine.dispose()


def _sqlite(path: Path) -> Engine:
    engine = create_engine(f"sqlite:///{path}", poolclass=NullPool, connect_args={"timeout": 60})

    # SQLAlchemy, "pysqlite: serializable isolation": the driver's own transactions would leave out a schema's changes.
    @event.listens_for(engine, "connect")
    def _bare(connection: Any, _: Any) -> None:
        connection.isolation_level = None

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    return engine


def _postgresql(url: str) -> Engine:
    from pawl.rollout.control_postgres_server import connected, parameters

    def connect() -> Any:
        made = connected(parameters(url))
        made.autocommit = False
        return made

    return create_engine("postgresql+psycopg2://", creator=connect, poolclass=NullPool)


def _known(revision: str) -> None:
    if revision not in REVISIONS:
        raise PawlError(f"there is no schema {revision!r}; there are: {', '.join(REVISIONS)}")
