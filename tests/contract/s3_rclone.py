"""A real S3 server for tests: rclone serves a folder over S3's API."""

from __future__ import annotations

import secrets
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

from tests.ports import free_port


class S3:
    """One bucket named `bucket`. It can be stopped and started again, on the same port and with the same objects."""

    def __init__(self, folder: Path) -> None:
        self.key, self.secret = secrets.token_hex(8), secrets.token_hex(16)
        self.port = free_port()
        self.folder, self.endpoint = folder, f"http://127.0.0.1:{self.port}"
        (folder / "bucket").mkdir(parents=True)
        self.start()

    def start(self) -> None:
        program = shutil.which("rclone", path=str(Path(sys.executable).parent)) or "rclone"
        command = [program, "serve", "s3", str(self.folder), "--addr", f"127.0.0.1:{self.port}", "--auth-key",
                   f"{self.key},{self.secret}", "--config", "/dev/null"]  # fmt: skip
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        end = time.monotonic() + 20
        while time.monotonic() < end:
            with socket.socket() as s:
                if s.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            time.sleep(0.05)
        raise AssertionError("rclone did not start")

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(10)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(10)
