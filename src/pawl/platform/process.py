"""One server as a process in a session of its own, with a record on disk that finds it again, and only it.

A process id alone may belong to another program by tomorrow. The record keeps the boot and the clock tick in which the
process began (`/proc/PID/stat`, field 22, proc(5)), which no other process of that id shares; and every process that
descends from it carries a random token in its environment, so what a killed server leaves behind is found as well.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import msgspec
import psutil

from pawl.errors import ResourceError, ServerNotUp
from pawl.platform.listeners import holder_of
from pawl.platform.log_files import tail

PYTHON = sys.executable
TOKEN = "PAWL_STARTED_AS"  # noqa: S105 - the name of a variable
# Bytecode of the large libraries must be kept, or each process takes many seconds more; a token is a server's own.
_NOT_PASSED_ON = ("PYTHONDONTWRITEBYTECODE", TOKEN)


class Record(msgspec.Struct, frozen=True):
    """What is known of a start. `pid` 0: it was about to be started."""

    pid: int
    began: str  # see `beginning`
    token: str
    at: float  # epoch seconds
    starts: int = 1  # since the last `pawl down`
    # As the server had them when it started: it can be ended without its settings.
    port: int | None = None
    url: str = ""
    stops: int = 1
    stop_s: float = 15.0
    stop_signal: int = signal.SIGTERM


@dataclass(frozen=True)
class Server:
    """What is started, how one sees that it answers, and how long it may take."""

    name: str
    command: list[str]
    health: str | Callable[[], bool]
    home: Path
    port: int | None = None
    env: Mapping[str, str] = field(default_factory=dict)
    ready_s: float = 180.0
    stop_s: float = 15.0
    # What is only known when it starts: secrets, another server's address.
    late_env: Callable[[], Mapping[str, str]] | None = None
    url: str = ""  # where people look
    port_setting: str = ""  # the variable that gives it another port
    needs: tuple[str, ...] = ()  # what must be up, or done, before
    stops: int = 1  # those with smaller numbers are ended before
    stop_signal: signal.Signals = signal.SIGTERM

    @property
    def log(self) -> Path:
        return self.home / "logs" / f"{self.name}.log"

    @property
    def record(self) -> Path:
        return self.home / "run" / f"{self.name}.json"

    def known(self) -> Record | None:
        """The last start's record, whether it still runs or not."""
        try:
            return msgspec.json.decode(self.record.read_bytes(), type=Record)
        except (OSError, msgspec.DecodeError):
            return None

    def running(self) -> psutil.Process | None:
        """The process of an earlier start, if it is still that one."""
        known = self.known()
        if known is None or not known.pid:
            return None
        try:
            process = psutil.Process(known.pid)
            same = beginning(known.pid) == known.began and process.status() != psutil.STATUS_ZOMBIE
        except (OSError, psutil.Error):
            return None
        return process if same else None

    def start(self) -> bool:
        """Start it, unless it runs already; whether it was started. ResourceError where something else has its port."""
        known = self.known()
        if self.running() is not None:
            return False
        if known is not None:
            self._end(leftovers(known.token), 5.0)  # of a server that was killed
        if self.port is not None:
            demand_free(self.name, self.port, self.port_setting)
        self.log.parent.mkdir(parents=True, exist_ok=True)
        self.record.parent.mkdir(parents=True, exist_ok=True)
        made = Record(
            0, "", secrets.token_hex(16), time.time(), 1 + (known.starts if known else 0),
            self.port, self.url, self.stops, self.stop_s, int(self.stop_signal),
        )  # fmt: skip
        self._write(made)
        env = {k: v for k, v in os.environ.items() if k not in _NOT_PASSED_ON} | dict(self.env)
        env |= dict(self.late_env()) if self.late_env else {}
        with self.log.open("ab") as out:
            process = subprocess.Popen(
                self.command, stdout=out, stderr=out, stdin=subprocess.DEVNULL, env=env | {TOKEN: made.token},
                start_new_session=True,
            )  # fmt: skip
        self._write(msgspec.structs.replace(made, pid=process.pid, began=beginning(process.pid)))
        return True

    def _write(self, record: Record) -> None:
        part = self.record.with_suffix(".part")
        part.write_bytes(msgspec.json.encode(record))
        part.replace(self.record)

    def ready(self) -> bool:
        """Whether it answers."""
        if callable(self.health):
            return self.health()
        try:
            with urllib.request.urlopen(self.health, timeout=2) as answer:  # noqa: S310 - our own server
                return bool(answer.status == 200)
        except urllib.error.HTTPError:
            return False
        except (urllib.error.URLError, OSError) as e:
            # Its certificate names what clients call it by, not this machine's loopback: it answered.
            return "CERTIFICATE_VERIFY_FAILED" in str(e)

    def wait(self, stopped: Callable[[], bool] = lambda: False) -> None:
        """Until it answers, or `stopped` says so. ServerNotUp with the end of its log when it died or takes too
        long."""
        end = time.monotonic() + self.ready_s
        while not self.ready():
            if stopped():
                raise ServerNotUp(f"{self.name} was not waited for; `pawl status` shows whether it came up")
            if self.running() is None:
                raise ServerNotUp(f"{self.name} ended while starting. The end of {self.log}:\n{self.tail()}")
            if time.monotonic() > end:
                raise ServerNotUp(
                    f"{self.name} is not up after {self.ready_s:.0f} s (it runs on). {self.log}:\n{self.tail()}"
                )
            time.sleep(0.3)

    def tail(self, lines: int = 12) -> str:
        """The last lines of its log."""
        return tail(self.log, lines) or "(no log)"

    def stop(self, grace_s: float | None = None) -> str:
        """End the process and all that it started; kill what does not go in time. "stopped", "killed" (it did not go by
        itself) or "down" (there was nothing)."""
        known, process = self.known(), self.running()
        if known is None:
            return "down"
        how = "down"
        if process is not None:
            how = "stopped"
            family = [process, *_children(process)]
            _signalled(process, self.stop_signal)  # it may have ended since it was looked at
            if still_there([process], self.stop_s if grace_s is None else grace_s):
                how = "killed"
                for p in family:
                    _signalled(p, signal.SIGKILL)
                still_there(family, 5)
        left = leftovers(known.token)
        self._end(left, 2.0 if process is not None else 5.0)
        self.record.unlink(missing_ok=True)
        return "killed" if left and process is None else how

    def _end(self, processes: list[psutil.Process], grace_s: float) -> None:
        """Ask the uppermost of them to end, then kill the rest."""
        ids = {p.pid for p in processes}
        for p in processes:
            try:
                if p.ppid() not in ids:
                    p.send_signal(self.stop_signal)
            except psutil.Error:
                continue
        alive = still_there(processes, grace_s)
        for p in alive:
            _signalled(p, signal.SIGKILL)
        still_there(alive, 5)


def recorded(home: Path) -> list[Server]:
    """Every server with a record there, as it was started; enough to look at it and to end it."""
    found = []
    for path in sorted((home / "run").glob("*.json")):
        bare = Server(path.stem, [], lambda: True, home)
        known = bare.known()
        if known is not None:
            found.append(
                replace(
                    bare, port=known.port, url=known.url, stops=known.stops, stop_s=known.stop_s,
                    stop_signal=signal.Signals(known.stop_signal),
                )
            )  # fmt: skip
    return found


def beginning(pid: int) -> str:
    """What tells this process from every other that ever had its id. OSError or psutil.Error where it is gone."""
    if sys.platform == "linux":
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        # The name, in parentheses, may hold anything; the state follows it as field 3.
        return f"{boot}:{Path(f'/proc/{pid}/stat').read_text().rpartition(')')[2].split()[19]}"
    return f"{psutil.Process(pid).create_time():.3f}"


def file_number(path: Path) -> int:
    """Its number in the file system, another one where it was deleted and made anew; 0 where it is not there."""
    try:
        return path.stat().st_ino
    except OSError:
        return 0


def still_there(processes: Sequence[psutil.Process], within_s: float) -> list[psutil.Process]:
    """Those that have not ended after so long. One that waits for its parent to take note of its end has ended."""
    end = time.monotonic() + within_s
    while True:
        alive = [p for p in processes if _lives(p)]
        if not alive or time.monotonic() > end:
            return alive
        time.sleep(0.05)


def leftovers(token: str) -> list[psutil.Process]:
    """The living processes that carry a token, whatever became of their parents."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(TOKEN) == token and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except (psutil.Error, OSError):
            continue
    return found


def demand_free(name: str, port: int, setting: str = "") -> None:
    """ResourceError, which names who holds it, where something listens on the port."""
    holder = holder_of(port)
    if holder is not None:
        setting = setting or f"PAWL_{name.replace('-', '').upper()}_PORT"
        raise ResourceError(
            f"port {port}, wanted by {name}, is held by {holder}; end that, or set {setting} to a free one"
        )


def _children(process: psutil.Process) -> list[psutil.Process]:
    try:
        return list(process.children(recursive=True))
    except psutil.Error:
        return []


def _lives(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.Error:
        return False


def _signalled(process: psutil.Process, number: signal.Signals) -> None:
    with contextlib.suppress(psutil.Error):
        process.send_signal(number)
