"""A headless Chromium of this process, spoken to by its DevTools protocol over a pipe.

Nobody else can reach it: there is no port. A page is put into a document whose policy forbids scripts and requests,
and names resolve to nothing. Root may not use Chromium's own sandbox; there it runs without, as containers do.
"""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import json
import os
import select
import shutil
import signal
import tempfile
import threading
import time
from typing import Any

from pawl.qe.item import CannotGrade

_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
_FLAGS = (
    "--headless",
    "--remote-debugging-pipe",
    "--host-resolver-rules=MAP * ~NOTFOUND",
    "--disable-gpu",
    "--disable-dev-shm-usage",  # containers have little of it
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--window-size=1280,800",
)
# `default-src` keeps scripts, handlers in attributes and requests out; it stays in force when the document is replaced.
_BLANK = (
    "data:text/html,<!doctype html><meta http-equiv=Content-Security-Policy "
    "content=\"default-src 'none'; style-src 'unsafe-inline'\">"
)
_START_S, _CALL_S = 30.0, 20.0
_LOW_FDS = 20  # the child gets its pipe as 3 and 4: ours must lie elsewhere


class PageFailed(Exception):
    """A page that the browser could not deal with in time, or a script that threw."""


def installed() -> str | None:
    """Path of the browser; None where there is none."""
    return next((path for name in _NAMES if (path := shutil.which(name))), None)


def required() -> str:
    """Path of the browser; CannotGrade where there is none, with what to install."""
    path = installed()
    if path is None:
        raise CannotGrade(
            "no browser is installed: pages are graded by axe-core in Chromium. Install it (on Debian `apt-get install "
            f"chromium`), or put one of {', '.join(_NAMES)} on the PATH"
        )
    return path


class Chromium:
    """One page of one browser, started when it is first needed and again after a failure; safe to share by threads.

    `prelude` is a script that is there before any call, in a world of its own.
    """

    def __init__(self, prelude: str) -> None:
        self._prelude = prelude
        self._lock = threading.Lock()
        self._pid = 0
        self._owner = 0  # the process that started it: a fork has none
        self._profile = ""
        self._to = self._from = -1
        self._buffer = b""
        self._last = 0
        self._session = ""
        self._world = 0

    def call(self, function: str, *arguments: Any, seconds: float = _CALL_S) -> Any:
        """What a function of the prelude returns, or resolves to; arguments and result are JSON types.

        Raises:
            CannotGrade: there is no browser, or it does not start.
            PageFailed: it threw, or took longer than `seconds`.
        """
        with self._lock:
            if self._owner != os.getpid():
                self._start()
            told = ",".join(json.dumps(a) for a in arguments)
            try:
                found = self._evaluate(f"{function}({told})", seconds)
            except (OSError, EOFError, TimeoutError) as error:
                self._stop()
                raise PageFailed(f"the browser did not answer: {type(error).__name__} {error}") from error
            except PageFailed:
                self._stop()  # nobody knows what the page left behind
                raise
            return found

    def stop(self) -> None:
        """End the browser; the next call starts another."""
        with self._lock:
            self._stop()

    def _start(self) -> None:
        path = required()
        self._pid = self._world = self._last = 0
        self._buffer, self._session = b"", ""
        self._profile = tempfile.mkdtemp(prefix="pawl-chromium-")
        theirs_in, self._to = (_high(fd) for fd in os.pipe())
        self._from, theirs_out = (_high(fd) for fd in os.pipe())
        command = [path, *_FLAGS, *(["--no-sandbox"] if os.geteuid() == 0 else []), f"--user-data-dir={self._profile}"]
        try:
            self._pid = os.posix_spawn(
                path,
                [*command, "about:blank"],
                dict(os.environ),
                file_actions=[
                    (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                    (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0),
                    (os.POSIX_SPAWN_OPEN, 2, os.devnull, os.O_WRONLY, 0),
                    (os.POSIX_SPAWN_DUP2, theirs_in, 3),
                    (os.POSIX_SPAWN_DUP2, theirs_out, 4),
                ],
                setsid=True,
            )
            self._owner = os.getpid()
            os.close(theirs_in)
            os.close(theirs_out)
            self._open_page()
        except (OSError, EOFError, TimeoutError, PageFailed) as error:
            self._stop()
            raise CannotGrade(f"{path} does not start ({type(error).__name__}: {error}): try it by hand") from error

    def _open_page(self) -> None:
        made = self._ask("Target.createTarget", {"url": "about:blank"}, _START_S)
        attached = self._ask("Target.attachToTarget", {"targetId": made["targetId"], "flatten": True})
        self._session = attached["sessionId"]
        self._ask("Network.enable", {})
        self._ask("Network.setBlockedURLs", {"urls": ["http://*", "https://*", "ws://*", "wss://*", "file://*"]})
        frame = self._ask("Page.navigate", {"url": _BLANK})["frameId"]
        until = time.monotonic() + _CALL_S
        while (
            self._ask("Runtime.evaluate", {"expression": "location.protocol + document.readyState"})["result"].get(
                "value"
            )
            != "data:complete"
        ):
            if time.monotonic() > until:
                raise TimeoutError("the empty page does not load")
            time.sleep(0.02)
        world = self._ask("Page.createIsolatedWorld", {"frameId": frame, "worldName": "pawl"})
        self._world = world["executionContextId"]
        self._evaluate(self._prelude + "\n;0")

    def _evaluate(self, expression: str, seconds: float = _CALL_S) -> Any:
        asked = {"expression": expression, "contextId": self._world, "awaitPromise": True, "returnByValue": True}
        found = self._ask("Runtime.evaluate", asked, seconds)
        if "exceptionDetails" in found:
            told = found["exceptionDetails"]
            raise PageFailed(str(told.get("exception", {}).get("description", told.get("text")))[:300])
        return found["result"].get("value")

    def _ask(self, method: str, parameters: dict[str, Any], seconds: float = _CALL_S) -> dict[str, Any]:
        self._last += 1
        message: dict[str, Any] = {"id": self._last, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        until = time.monotonic() + seconds
        self._write(json.dumps(message).encode() + b"\0", until)
        while True:
            told = json.loads(self._read(until))
            if told.get("id") == self._last:
                if "error" in told:
                    raise PageFailed(f"{method}: {told['error'].get('message')}")
                result: dict[str, Any] = told["result"]
                return result

    def _write(self, data: bytes, until: float) -> None:
        while data:
            if not select.select([], [self._to], [], max(0.0, until - time.monotonic()))[1]:
                raise TimeoutError("it reads nothing")
            data = data[os.write(self._to, data[: select.PIPE_BUF]) :]

    def _read(self, until: float) -> bytes:
        while b"\0" not in self._buffer:
            if not select.select([self._from], [], [], max(0.0, until - time.monotonic()))[0]:
                raise TimeoutError("no answer in time")
            more = os.read(self._from, 1 << 20)
            if not more:
                raise EOFError("it has ended")
            self._buffer += more
        told, _, self._buffer = self._buffer.partition(b"\0")
        return told

    def _stop(self) -> None:
        if self._owner != os.getpid():
            return
        self._owner = 0
        for fd in (self._to, self._from):
            with contextlib.suppress(OSError):
                os.close(fd)
        with contextlib.suppress(OSError):
            os.killpg(self._pid, signal.SIGKILL)
        with contextlib.suppress(OSError):
            os.waitpid(self._pid, 0)
        shutil.rmtree(self._profile, ignore_errors=True)


def _high(fd: int) -> int:
    moved = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, _LOW_FDS)
    os.close(fd)
    return moved


def ended_with_this_process(browser: Chromium) -> Chromium:
    """The same browser; it is ended when the interpreter is. (Killed from outside, its pipe closes and it ends too.)"""
    atexit.register(browser.stop)
    return browser
