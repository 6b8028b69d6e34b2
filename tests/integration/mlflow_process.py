"""A real MLflow server as Pawl sets it up: with its webhook's key, and with accounts where a test wants them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path


class LiveMlflow:
    """Keeps everything under `folder`; may be killed and started again."""

    def __init__(self, folder: Path, port: int, env: dict[str, str] | None = None, *more: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.url = folder, f"http://127.0.0.1:{port}"
        self._env = {
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "MLFLOW_WEBHOOK_ALLOWED_SCHEMES": "http,https",
            "MLFLOW_WEBHOOK_ALLOW_PRIVATE_IPS": "true",
            "MLFLOW_WEBHOOK_CACHE_TTL": "1",
            **(env or {}),
        }
        self._command = [
            sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1",
            "--backend-store-uri", f"sqlite:///{folder / 'mlflow.db'}",
            "--artifacts-destination", str(folder / "artifacts"), *more,
        ]  # fmt: skip
        self.start()

    @property
    def log(self) -> str:
        return (self.folder / "log").read_text()

    def start(self) -> None:
        env = os.environ | self._env
        env.pop("PYTHONDONTWRITEBYTECODE", None)
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                self._command, stdout=log, stderr=log, cwd=self.folder, env=env, start_new_session=True
            )
        end = time.monotonic() + 120
        while time.monotonic() < end:
            try:
                urllib.request.urlopen(f"{self.url}/health", timeout=1).close()
                return
            except OSError:
                assert self.process.poll() is None, self.log[-3000:]
                time.sleep(0.2)
        raise AssertionError(self.log[-3000:])

    def kill(self) -> None:
        """At once, with its workers."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(20)

    def stop(self) -> None:
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGTERM)
            self.process.wait(20)
