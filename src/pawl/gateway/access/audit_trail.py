"""Audit entries of the gateway, several in one commit, off the event loop."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Any

from pawl.rollout.control import AuditEntry, ControlStore

log = logging.getLogger("pawl.audit")


class AuditTrail:
    """`add` returns when the entry is on the disk, so that what it tells of can begin."""

    def __init__(self, control: ControlStore) -> None:
        self._control = control
        self._pending: list[tuple[AuditEntry, asyncio.Future[None]]] = []
        self._writer: asyncio.Task[None] | None = None
        self._notes: set[asyncio.Task[None]] = set()  # the loop itself keeps only weak references

    async def add(self, event: str, by: str, detail: dict[str, Any]) -> None:
        """PawlError where it cannot be written: then what it tells of may not happen."""
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._pending.append((AuditEntry(event, by, detail, time.time()), done))
        if self._writer is None or self._writer.done():
            self._writer = asyncio.create_task(self._write())
        await asyncio.shield(done)

    def note(self, event: str, by: str, detail: dict[str, Any]) -> None:
        """As `add`, for what did not happen: nothing waits for it."""
        task = asyncio.ensure_future(self.add(event, by, detail))
        self._notes.add(task)
        task.add_done_callback(self._noted)

    def _noted(self, task: asyncio.Task[None]) -> None:
        self._notes.discard(task)
        if not task.cancelled() and (failed := task.exception()) is not None:
            log.error("an audit entry could not be written: %s", failed)

    async def drain(self) -> None:
        """Until everything noted is written."""
        if self._notes:
            await asyncio.wait(self._notes)

    async def _write(self) -> None:
        # One commit takes a disk's flush: everything that came meanwhile goes into the next.
        while self._pending:
            group, self._pending = self._pending, []
            try:
                await asyncio.to_thread(self._control.audit_many, [entry for entry, _ in group])
            except Exception as e:
                for _, done in group:
                    done.set_exception(e)
            else:
                for _, done in group:
                    done.set_result(None)
