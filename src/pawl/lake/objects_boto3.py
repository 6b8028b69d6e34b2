"""The lake's objects in S3, or in anything that speaks its API."""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import boto3
from boto3.exceptions import Boto3Error
from boto3.s3.transfer import TransferConfig
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from pawl.errors import LakeError
from pawl.lake.objects import Stored

_PART = 16 << 20  # bytes from which an upload goes in parts


class S3Store:
    """One bucket and prefix. What was fetched stays in a local folder: objects never change.

    Credentials come from where boto3 finds them (environment, shared file, role), never from Pawl's settings.
    """

    def __init__(self, url: str, cache: Path, *, endpoint: str | None = None, encryption: str | None = None) -> None:
        """`url`: s3://bucket/prefix. `encryption`: AES256 or aws:kms, the server's side."""
        where = urlsplit(url)
        self._bucket, self._prefix = where.netloc, where.path.strip("/")
        self._cache, self._extra = cache, {"ServerSideEncryption": encryption} if encryption else {}
        # Path style: servers other than Amazon's have no host name for each bucket.
        config = Config(
            retries={"mode": "standard", "max_attempts": 5},
            connect_timeout=5,
            read_timeout=60,
            s3={"addressing_style": "path"} if endpoint else None,
        )
        self._client: Any = boto3.client("s3", endpoint_url=endpoint, config=config)
        self._transfer = TransferConfig(multipart_threshold=_PART, multipart_chunksize=_PART)

    def put(self, name: str, source: Path) -> None:
        try:
            self._client.upload_file(
                str(source), self._bucket, self._key(name), ExtraArgs=self._extra, Config=self._transfer
            )
        except (BotoCoreError, ClientError, Boto3Error, OSError) as e:
            raise self._failed("write", name, e) from e
        source.unlink(missing_ok=True)

    def fetch(self, name: str) -> Path:
        path = self._cache / name
        if path.exists():
            return path
        part = path.with_suffix(f".{os.getpid()}.part")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._client.download_file(self._bucket, self._key(name), str(part), Config=self._transfer)
            part.replace(path)
        except ClientError as e:
            if e.response.get("Error", {}).get("Code") in ("404", "NoSuchKey"):
                raise FileNotFoundError(name) from e
            raise self._failed("read", name, e) from e
        except (BotoCoreError, Boto3Error, OSError) as e:
            raise self._failed("read", name, e) from e
        finally:
            part.unlink(missing_ok=True)
        return path

    def delete(self, name: str) -> None:
        try:
            self._client.delete_object(Bucket=self._bucket, Key=self._key(name))
        except (BotoCoreError, ClientError) as e:
            raise self._failed("delete", name, e) from e
        (self._cache / name).unlink(missing_ok=True)

    def listed(self, prefix: str) -> list[Stored]:
        found = []
        try:
            for page in self._client.get_paginator("list_objects_v2").paginate(
                Bucket=self._bucket, Prefix=self._key(prefix)
            ):
                cut = len(self._key(""))
                found += [Stored(o["Key"][cut:], o["LastModified"].timestamp()) for o in page.get("Contents", ())]
        except (BotoCoreError, ClientError) as e:
            raise self._failed("list", prefix, e) from e
        return found

    def drop_copies(self, but: Collection[str], before: float) -> None:
        kept = set(but)
        for path in self._cache.rglob("*"):
            if path.is_file() and str(path.relative_to(self._cache)) not in kept and path.stat().st_mtime < before:
                path.unlink(missing_ok=True)

    def _key(self, name: str) -> str:
        return f"{self._prefix}/{name}" if self._prefix else name

    def _failed(self, what: str, name: str, e: Exception) -> LakeError:
        where = f"s3://{self._bucket}/{self._key(name)}"
        return LakeError(
            f"the lake cannot {what} {where}: {e}; check PAWL_LAKE_URL, PAWL_S3_ENDPOINT and the credentials"
        )
