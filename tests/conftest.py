"""What all tests share: an empty home, the fleet, and what this machine lacks, said out loud."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.ports import free_port

if TYPE_CHECKING:
    from tests.postgres_embedded import Postgres

ROOT = Path(__file__).resolve().parents[1]
# Importing the large libraries anew in every process takes many seconds without bytecode.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)


@pytest.fixture
def root() -> Path:
    """The project's root."""
    return ROOT


@pytest.fixture
def outside() -> Iterator[Path]:
    """A folder that is not pytest's: another session of pytest would close pytest's to the database's own user."""
    with tempfile.TemporaryDirectory(prefix="pawl-") as made:
        yield Path(made)


@pytest.fixture(name="free_port")
def a_free_port() -> int:
    """A port that is free."""
    return free_port()


@pytest.fixture(scope="session")
def unused() -> Callable[[], int]:
    """Ports that are free, as many as a test wants."""
    return free_port


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Postgres]:
    """A real PostgreSQL server, one for all tests of the session."""
    from tests.postgres_embedded import Postgres

    # Not under pytest's folder: a Unix socket's path may have 107 characters.
    with tempfile.TemporaryDirectory(prefix="pg") as folder:
        made = Postgres(Path(folder) / "data")
        yield made
        made.stop()


@pytest.fixture(scope="session")
def mlflow_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real MLflow server on SQLite, one for all tests of the session."""
    folder = tmp_path_factory.mktemp("mlflow")
    url = f"http://127.0.0.1:{free_port()}"
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", url.rsplit(":", 1)[1]]
    command += ["--workers", "1", "--backend-store-uri", f"sqlite:///{folder / 'mlflow.db'}"]
    command += ["--artifacts-destination", str(folder / "artifacts")]
    quiet = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen(
            command, stdout=log, stderr=log, cwd=folder, env={**os.environ, **quiet}, start_new_session=True
        )
    try:
        give_up = time.monotonic() + 120
        while True:
            try:
                urllib.request.urlopen(f"{url}/health", timeout=1).close()
                break
            except OSError:
                if server.poll() is not None or time.monotonic() > give_up:
                    pytest.fail((folder / "log").read_text()[-2000:])
                time.sleep(0.2)
        yield url
    finally:
        # The server's own group: uvicorn's workers must not outlive it.
        os.killpg(server.pid, 15)
        server.wait(20)
