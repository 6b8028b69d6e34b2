"""A real Ray cluster of processes on loopback: a head that works nothing itself, and nodes that can be killed."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

from pawl.workers.port import Workers
from tests.ports import free_port

ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AUTH_MODE": "token",
    # A dead node is noticed after a second and not after twenty.
    "RAY_health_check_initial_delay_ms": "500",
    "RAY_health_check_period_ms": "500",
    "RAY_health_check_timeout_ms": "2000",
    "RAY_health_check_failure_threshold": "2",
}


class RayCluster:
    """`address` is for drivers on this machine."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._token = folder / "token"
        self._token.write_text("0" * 64)
        self.port = free_port()
        self.address = f"127.0.0.1:{self.port}"
        self.environment = ENVIRONMENT | {"RAY_AUTH_TOKEN_PATH": str(self._token)}
        self._sockets = Path(tempfile.mkdtemp(prefix="ray-"))  # in pytest's, their names would be too long
        self._nodes: list[subprocess.Popen[bytes]] = []
        self._start(
            "--head", f"--port={self.port}", "--num-cpus=0", "--include-dashboard=false",
            f"--temp-dir={self._sockets}",
        )  # fmt: skip

    def node(self, cpus: int = 1) -> subprocess.Popen[bytes]:
        """One more machine."""
        return self._start(f"--address={self.address}", f"--num-cpus={cpus}")

    def kill(self, node: subprocess.Popen[bytes]) -> None:
        """With all its processes, as when its power goes."""
        family = [*psutil.Process(node.pid).children(recursive=True), psutil.Process(node.pid)]
        for process in family:
            try:
                process.send_signal(signal.SIGKILL)
            except psutil.NoSuchProcess:
                continue
        node.wait()
        self._nodes.remove(node)

    def stop(self) -> None:
        for node in reversed(self._nodes[:]):
            self.kill(node)
        shutil.rmtree(self._sockets, ignore_errors=True)

    def _start(self, *args: str) -> subprocess.Popen[bytes]:
        log = (self._folder / f"node{len(self._nodes)}.log").open("wb")
        command = [str(Path(sys.executable).with_name("ray")), "start", "--block", "--node-ip-address=127.0.0.1", *args]
        made = subprocess.Popen(command, env=os.environ | self.environment, stdout=log, stderr=subprocess.STDOUT)
        self._nodes.append(made)
        end = time.monotonic() + 60
        while "runtime started" not in (said := Path(log.name).read_text()):
            assert made.poll() is None and time.monotonic() < end, said
            time.sleep(0.1)
        return made


def ray_of(cluster: RayCluster) -> Workers:
    """What works there, for this process."""
    from pawl.workers.workers_ray import RayWorkers  # Ray reads the environment as it is imported

    return RayWorkers(cluster.address)
