"""MLflow as it stands on a server: its tables in a real PostgreSQL, its artifacts in a real S3 store."""

from __future__ import annotations

from pathlib import Path

import mlflow
import pytest
from mlflow import MlflowClient

from tests.contract.s3_rclone import S3
from tests.integration.mlflow_process import LiveMlflow
from tests.postgres_embedded import Postgres


@pytest.mark.servers
def test_a_version_its_alias_and_its_files_survive_the_servers_death(
    tmp_path: Path, postgres: Postgres, free_port: int
) -> None:
    store, database = S3(tmp_path / "s3"), postgres.database("template0")
    env = {
        "MLFLOW_S3_ENDPOINT_URL": store.endpoint, "AWS_ACCESS_KEY_ID": store.key, "AWS_SECRET_ACCESS_KEY": store.secret,
        "AWS_DEFAULT_REGION": "us-east-1",
    }  # fmt: skip
    where = ["--backend-store-uri", database, "--artifacts-destination", "s3://bucket/mlflow"]
    server = LiveMlflow(tmp_path / "server", free_port, env, *where)
    before = mlflow.get_tracking_uri()
    try:
        mlflow.set_tracking_uri(server.url)
        client = MlflowClient(server.url)
        weights = tmp_path / "adapter.bin"
        weights.write_bytes(bytes(range(256)) * 4000)
        run = client.create_run(client.create_experiment("e")).info.run_id
        client.log_artifact(run, str(weights), "adapter")
        client.create_registered_model("agent")
        made = client.create_model_version("agent", f"runs:/{run}/adapter", run)
        client.set_registered_model_alias("agent", "champion", made.version)
        assert list((store.folder / "bucket" / "mlflow").rglob("adapter.bin")), "it went to S3"
        assert postgres.run("SELECT version FROM model_versions", database) == [(1,)]
        server.kill()
        server.start()
        assert client.get_model_version_by_alias("agent", "champion").version == made.version
        fetched = Path(client.download_artifacts(run, "adapter/adapter.bin", str(tmp_path)))
        assert fetched.read_bytes() == weights.read_bytes()
    finally:
        mlflow.set_tracking_uri(before)
        server.stop()
        store.stop()
