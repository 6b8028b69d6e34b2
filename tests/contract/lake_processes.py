"""Processes that use one lake at the same time, made to be killed: `python -m tests.contract.lake_processes PLACE`.

One process imports everything and forks at each line of its input, so that a kill costs milliseconds:
`start ROLE SEED` prints the child's process id, `kill PID` prints it when it is dead (signal 9).
A writer notes in the file `acknowledged` what its journal has taken, after it has.
"""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Any

from pawl.errors import LakeError
from pawl.lake import tables_pyarrow as tables_pyarrow  # before the fork
from pawl.lake.journal import Journal
from pawl.lake.manifest import PointedManifest
from pawl.lake.objects_boto3 import S3Store
from pawl.lake.parquet_lake import ParquetLake
from pawl.lake.records import Feedback, Interaction
from pawl.rollout.control_sqlite import SqliteControl

AT = 1_795_000_000.0


def interaction(name: str, n: int) -> Interaction:
    """The n-th of a writer."""
    return Interaction(
        id=f"i-{name}-{n}", at=AT + n % 5000, agent=f"a{n % 2}", session="s", key_id="k", arm="base",
        arm_kind="local", messages=[{"role": "user", "content": "x" * (n % 300)}], task={"n": n},
    )  # fmt: skip


def feedback(name: str, n: int) -> Feedback:
    """About it."""
    at = AT + n % 5000
    return Feedback(id=f"f-{name}-{n}", at=at, interaction=f"i-{name}-{n}", agent=f"a{n % 2}", kind="rating", score=0.5)


class Place:
    """A lake in a folder, or in S3 with a lake folder of its own for each machine."""

    def __init__(self, home: Path, url: str = "", endpoint: str = "") -> None:
        self.home, self.url, self.endpoint = home, url, endpoint
        self._clients: dict[str, S3Store] = {}

    def warm(self) -> None:
        """Make clients before the fork; none of them has a connection yet."""
        if self.url:
            for machine in ("here", "there"):
                self._client(machine)

    def _client(self, machine: str) -> S3Store:
        if machine not in self._clients:
            cache = self.home / machine / "fetched"
            self._clients[machine] = S3Store(self.url, cache, endpoint=self.endpoint)
        return self._clients[machine]

    def lake(self, machine: str = "here") -> ParquetLake:
        """`there` has another journal, which stays empty, and in S3 a lock of its own."""
        journal = self.home / ("journal-there" if machine == "there" else "journal")
        if not self.url:
            return ParquetLake(self.home / "lake", journal)
        store = self._client(machine)
        manifests = PointedManifest(store, SqliteControl(self.home / "control.sqlite"))
        return ParquetLake(self.home / machine, journal, store=store, manifests=manifests)

    def acknowledged(self) -> list[str]:
        """What writers were told is kept."""
        path = self.home / "acknowledged"
        return path.read_text().split() if path.exists() else []


def write(place: Place, seed: str) -> None:
    """For ever: append a group, note that it is kept."""
    journal = Journal(place.home / "journal", "w", rotate_bytes=2000, rotate_s=0.05)
    note = os.open(place.home / "acknowledged", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    for n in itertools.count():
        group = (interaction(seed, n), feedback(seed, n))
        journal.append(group)
        os.write(note, "".join(f"{r.id}\n" for r in group).encode())
        time.sleep(0.002)


def ingest(place: Place, seed: str) -> None:
    """For ever: take in what is sealed."""
    lake = place.lake()
    while True:
        _try(lake.ingest)


def compact(place: Place, seed: str) -> None:
    """For ever: merge, on another machine."""
    lake = place.lake("there")
    while True:
        _try(lambda: lake.compact(time.time()))


def _try(step: Any) -> None:
    try:
        step()
    except LakeError as e:  # the server was stopped
        print(e, file=sys.stderr)
    time.sleep(0.005)


ROLES = {"write": write, "ingest": ingest, "compact": compact}


def serve(place: Place) -> None:
    """Start and kill children as the input says."""
    place.warm()
    for line in sys.stdin:
        command, what, *rest = line.split()
        if command == "start":
            child = os.fork()
            if child == 0:
                try:
                    ROLES[what](place, *rest)
                finally:
                    os._exit(1)
            print(child, flush=True)
        else:
            os.kill(int(what), signal.SIGKILL)
            print(os.waitpid(int(what), 0)[0], flush=True)


class Processes:
    """What the test holds: roles that run, and are killed and started again."""

    def __init__(self, place: Place, root: Path) -> None:
        told = json.dumps([str(place.home), place.url, place.endpoint])
        self._errors = (place.home / "errors").open("wb")
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.contract.lake_processes", told], cwd=root, stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, stderr=self._errors, text=True,
        )  # fmt: skip
        self._running: dict[str, int] = {}
        self._seeds = itertools.count()

    def start(self, role: str) -> None:
        self._running[role] = self._ask(f"start {role} {next(self._seeds)}")

    def kill(self, role: str) -> None:
        pid = self._running.pop(role)
        assert self._ask(f"kill {pid}") == pid

    def _ask(self, line: str) -> int:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(f"{line}\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())

    def __enter__(self) -> Processes:
        for role in ROLES:
            self.start(role)
        return self

    def __exit__(self, kind: type[BaseException] | None, value: Any, trace: TracebackType | None) -> None:
        try:
            for role in list(self._running):
                self.kill(role)
        finally:
            assert self._process.stdin is not None
            self._process.stdin.close()
            self._process.wait(10)
            self._errors.close()


if __name__ == "__main__":
    home, url, endpoint = json.loads(sys.argv[1])
    serve(Place(Path(home), url, endpoint))
