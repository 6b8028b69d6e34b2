"""Prefect's database, server, worker and deployments as the platform starts them: command lines and REST, no import of
Prefect."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from pawl.errors import PawlError, ServerNotUp
from pawl.platform.process import PYTHON, TOKEN, Server, file_number
from pawl.settings import Settings

POOL = "pawl"
PATIENCE_S = 60.0  # its database may be starting again


def environment(settings: Settings, root: Path) -> dict[str, str]:
    """What Prefect's processes, and the flows they start, are told."""
    return {
        "PREFECT_API_URL": settings.prefect_api_url,
        "PREFECT_HOME": str((settings.home / "prefect").resolve()),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_LOGGING_LEVEL": "WARNING",
        "PREFECT_WORKER_QUERY_SECONDS": "1",
        "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30",  # by which a run whose process is gone is told from a long one
        "PREFECT_CLI_COLORS": "false",
        "DO_NOT_TRACK": "1",
        "PYTHONPATH": str(root),
        "PAWL_ROOT": str(root),
        "PAWL_TIMEZONE": settings.timezone,
    }


def database(settings: Settings) -> Server | None:
    """The embedded PostgreSQL, None where the setting says SQLite."""
    if settings.prefect_database == "sqlite":
        return None
    uri, data = _uri_file(settings), settings.home / "postgres"
    return Server(
        name="postgres",
        command=[PYTHON, "-m", "pawl.platform.postgres_server", str(data.resolve()), str(uri.resolve())],
        health=uri.exists,
        home=settings.home,
        ready_s=60,
        stops=3,
        # PostgreSQL's fast shutdown, for one whose keeper was killed; the keeper itself takes both alike.
        stop_signal=signal.SIGINT,
    )


def server(settings: Settings, root: Path) -> Server:
    """Prefect's API and UI. Its database must be up when it starts."""

    def with_database() -> dict[str, str]:
        uri = _uri_file(settings)
        if settings.prefect_database == "sqlite" or not uri.exists():
            return {}
        return {"PREFECT_API_DATABASE_CONNECTION_URL": uri.read_text()}

    command = [PYTHON, "-m", "prefect", "server", "start", "--host", settings.host, "--port"]
    return Server(
        name="prefect",
        command=[*command, str(settings.prefect_port)],
        health=f"{settings.prefect_api_url}/health",
        home=settings.home,
        port=settings.prefect_port,
        env=environment(settings, root),
        ready_s=120,
        late_env=with_database,
        url=settings.prefect_api_url.removesuffix("/api"),
        port_setting="PAWL_PREFECT_PORT",
        needs=() if settings.prefect_database == "sqlite" else ("postgres",),
        stops=2,
    )


def worker(settings: Settings, root: Path) -> Server:
    """A process worker on the pool."""

    def online() -> bool:
        try:
            found = ask(settings, f"/work_pools/{POOL}/workers/filter", {}, within_s=3)
        except (OSError, ValueError):
            return False
        return any(w["status"] == "ONLINE" for w in found)

    return Server(
        name="worker",
        command=[PYTHON, "-m", "prefect", "worker", "start", "--pool", POOL, "--type", "process", "--name", "pawl"],
        health=online,
        home=settings.home,
        env=environment(settings, root),
        ready_s=90,
        needs=("prefect", "deployments"),
        stops=0,
    )


def deploy(settings: Settings, root: Path) -> None:
    """Create the pool and every deployment of prefect.yaml. ServerNotUp with what Prefect said where it refuses."""
    if not (root / "prefect.yaml").exists():
        raise PawlError(f"{root.resolve()} holds no prefect.yaml: go to the project's folder, or set PAWL_ROOT")
    dropped = ("PYTHONDONTWRITEBYTECODE", TOKEN)
    env = {k: v for k, v in os.environ.items() if k not in dropped} | environment(settings, root)
    try:
        try:
            ask(settings, f"/work_pools/{POOL}", patience_s=PATIENCE_S)
        except urllib.error.HTTPError as e:
            if e.code != 404:
                raise
            ask(settings, "/work_pools/", {"name": POOL, "type": "process"})
    except OSError as e:
        raise ServerNotUp(f"Prefect at {settings.prefect_api_url} did not take the pool ({e}); see its log") from e
    done = subprocess.run(
        [PYTHON, "-m", "prefect", "--no-prompt", "deploy", "--all"],
        cwd=root, env=env, capture_output=True, text=True, timeout=180, check=False,
    )  # fmt: skip
    if done.returncode != 0:
        raise ServerNotUp(f"prefect deploy failed:\n{(done.stdout + done.stderr)[-2000:]}")


def deployed_as(settings: Settings, root: Path) -> str:
    """Changes when the deployments must be made anew: another prefect.yaml, other flows, another server, database or
    root."""
    stores = [file_number(settings.home / name) for name in ("postgres", "prefect/prefect.db")]
    digest = hashlib.sha256(f"{settings.prefect_api_url}\0{root.resolve()}\0{stores}\0{settings.timezone}".encode())
    for path in [root / "prefect.yaml", *sorted((root / "flows").glob("*.py"))]:
        if path.exists():
            digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()


def _uri_file(settings: Settings) -> Path:
    return settings.home / "run" / "prefect-database-uri"


def ask(
    settings: Settings,
    path: str,
    body: Any = None,
    patience_s: float = 0.0,
    within_s: float = 20,
    method: str | None = None,
) -> Any:
    """Read from the API, or write `body` to it (POST, else `method`). OSError where the server does not take it.

    One that is down or stumbles is asked again for so long; what may make something twice only where nothing was done:
    503, refused.
    """
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(  # noqa: S310 - the settings' own address
        settings.prefect_api_url + path, data, {"content-type": "application/json"}, method=method
    )
    twice_harms = request.get_method() == "POST"
    end = time.monotonic() + patience_s
    while True:
        try:
            with urllib.request.urlopen(request, timeout=within_s) as answer:  # noqa: S310
                return json.loads(answer.read() or b"null")
        except OSError as e:
            if time.monotonic() > end or not _may_ask_again(e, twice_harms):
                raise
            time.sleep(1)


def _may_ask_again(error: OSError, twice_harms: bool) -> bool:
    if isinstance(error, urllib.error.HTTPError):
        return error.code == 503 or (error.code >= 500 and not twice_harms)
    return not twice_harms or isinstance(getattr(error, "reason", error), ConnectionRefusedError)
