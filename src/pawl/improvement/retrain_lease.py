"""At most one retrain of an agent at a time, over all runs and machines: a lease in the control database.

Prefect's own concurrency limits keep their leases in the memory of its server by default: a server that was restarted
meanwhile leaves a dead holder's slot taken for good. This one ends by itself, or as soon as a run on the holder's own
machine sees that its process is gone. Its clock is each holder's own, so that machines whose clocks differ by more than
`LASTS_S` need a time service first.
"""

from __future__ import annotations

import contextlib
import logging
import socket
import threading
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import msgspec
import psutil

from pawl.errors import PawlError, StaleWrite
from pawl.rollout.control import ControlStore

LASTS_S = 120.0  # without a sign of life
_RENEWED_EVERY_S = 20.0
_LOOK_EVERY_S = 2.0
WhenBusy = Literal["wait", "cancel"]
log = logging.getLogger("pawl.retraining")


class AlreadyRetraining(PawlError):
    """Another run retrains this agent, and this one was not to wait."""


class Lease(msgspec.Struct, frozen=True, kw_only=True):
    """Who retrains an agent."""

    run: str  # the flow run, or the one that it was started again for
    token: str  # of this attempt; another attempt of the same run has another
    machine: str
    pid: int
    process_began: float  # a process id alone may be another's by now
    until: float  # epoch seconds


def holder(control: ControlStore, agent: str) -> Lease | None:
    """Who holds it now, dead or alive; None where nobody does."""
    _, text = control.pointer(_pointer(agent))
    return msgspec.json.decode(text, type=Lease) if text else None


def is_free(lease: Lease | None, run: str, machine: str, alive: bool, now: float) -> bool:
    """Whether `run` may take it (pure). `alive`: whether the holder's process lives, where it is on this machine.

    The same run may take it from another machine: it was started again after a crash, and goes on. From a process of
    this machine that lives it takes nothing.
    """
    if lease is None or now >= lease.until:
        return True
    here = lease.machine == machine
    return not alive if here else lease.run == run


class Retraining:
    """The lease of one agent for one run, as a context. `when_busy`: wait for another run's end, or AlreadyRetraining.

    `tell` gets a sentence when waiting begins.
    """

    def __init__(
        self,
        control: ControlStore,
        agent: str,
        run: str,
        when_busy: WhenBusy = "wait",
        *,
        lasts_s: float = LASTS_S,
        tell: Callable[[str], None] = log.info,
    ) -> None:
        self._control, self._agent, self._when_busy = control, agent, when_busy
        self._lasts_s, self._tell = lasts_s, tell
        me = psutil.Process()
        self._mine = Lease(
            run=run, token=uuid.uuid4().hex, machine=_machine(), pid=me.pid, process_began=me.create_time(), until=0.0
        )
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._renew, name=f"retraining {agent}", daemon=True)

    def __enter__(self) -> Retraining:
        told = False
        while not self._take():
            found = holder(self._control, self._agent)
            who = f"run {found.run} on {found.machine.partition('/')[0]}" if found else "another run"
            if self._when_busy == "cancel":
                raise AlreadyRetraining(
                    f"{self._agent} is being retrained by {who}; start this again when that has ended, or let it wait "
                    "with when_busy: wait"
                )
            if not told:
                self._tell(f"{self._agent} is being retrained by {who}; waiting for its end")
                told = True
            time.sleep(_LOOK_EVERY_S)
        self._thread.start()
        return self

    def __exit__(self, *why: object) -> None:
        self._ended.set()
        self._thread.join()
        revision, _ = self._control.pointer(_pointer(self._agent))
        if self.is_held():
            with contextlib.suppress(StaleWrite):  # somebody took it over in this moment
                self._control.move_pointer(_pointer(self._agent), revision, "")

    def is_held(self) -> bool:
        """False where another run has taken over, because this one gave no sign of life for too long."""
        found = holder(self._control, self._agent)
        return found is not None and found.token == self._mine.token

    def demand(self) -> None:
        """StaleWrite where it is not held any more."""
        if not self.is_held():
            found = holder(self._control, self._agent)
            who = f"run {found.run}" if found else "another run"
            raise StaleWrite(
                f"the retrain of {self._agent} was taken over by {who}: this one was not heard of for "
                f"{self._lasts_s:.0f} s. Nothing is lost; the other goes on with it"
            )

    def _take(self) -> bool:
        name = _pointer(self._agent)
        revision, text = self._control.pointer(name)
        found = msgspec.json.decode(text, type=Lease) if text else None
        now = time.time()
        alive = found is None or _lives(found)
        if not is_free(found, self._mine.run, self._mine.machine, alive, now):
            return False
        try:
            self._control.move_pointer(name, revision, _text(self._mine, now + self._lasts_s))
        except StaleWrite:
            return False
        return True

    def _renew(self) -> None:
        name = _pointer(self._agent)
        while not self._ended.wait(min(_RENEWED_EVERY_S, self._lasts_s / 4)):
            try:
                revision, text = self._control.pointer(name)
                if not text or msgspec.json.decode(text, type=Lease).token != self._mine.token:
                    log.warning("the retrain of %s was taken over by another run", self._agent)
                    return
                self._control.move_pointer(name, revision, _text(self._mine, time.time() + self._lasts_s))
            except Exception as e:  # the database is busy, or away for a moment: the next try is soon
                log.warning("the lease of %s could not be renewed (%s); trying again", self._agent, e)


def _pointer(agent: str) -> str:
    return f"retraining/{agent}"


def _text(lease: Lease, until: float) -> str:
    return msgspec.json.encode(msgspec.structs.replace(lease, until=until)).decode()


def _lives(lease: Lease) -> bool:
    try:
        process = psutil.Process(lease.pid)
        same = abs(float(process.create_time()) - lease.process_began) < 2
        return same and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def _machine() -> str:
    """This machine as far as process ids are known by it: containers may share its name and not its processes."""
    space = Path("/proc/self/ns/pid")
    return f"{socket.gethostname()}/{space.readlink() if space.exists() else ''}"
