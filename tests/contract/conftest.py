"""The stores that the lake's promises are tested on."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pawl.lake.manifest import PointedManifest
from pawl.lake.objects_boto3 import S3Store
from pawl.lake.parquet_lake import ParquetLake
from pawl.rollout.control_sqlite import SqliteControl
from tests.contract.s3_rclone import S3


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3]:
    """A server, with its credentials where boto3 finds them."""
    made = S3(tmp_path_factory.mktemp("s3"))
    before = dict(os.environ)
    os.environ |= {"AWS_ACCESS_KEY_ID": made.key, "AWS_SECRET_ACCESS_KEY": made.secret, "AWS_REGION": "us-east-1"}
    yield made
    os.environ.clear()
    os.environ.update(before)
    made.stop()


@pytest.fixture(params=["folder", "s3"])
def lake(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[..., ParquetLake]:
    """Opens the same lake each time, with nothing in memory. `journal`: of another machine."""
    if request.param == "folder":

        def open_folder(check: Callable[[str], None] = lambda step: None, journal: str = "journal") -> ParquetLake:
            return ParquetLake(tmp_path / "lake", tmp_path / journal, check)

        return open_folder
    server: S3 = request.getfixturevalue("s3")
    url = f"s3://bucket/{secrets.token_hex(4)}"

    def open_s3(check: Callable[[str], None] = lambda step: None, journal: str = "journal") -> ParquetLake:
        root = tmp_path / secrets.token_hex(4)  # another machine's empty cache
        store = S3Store(url, root / "fetched", endpoint=server.endpoint)
        manifests = PointedManifest(store, SqliteControl(tmp_path / "control.sqlite"))
        return ParquetLake(root, tmp_path / journal, check, store=store, manifests=manifests)

    return open_s3
