"""Writes what happened: everything of one event-loop tick in one append, before any of its answers is complete."""

from __future__ import annotations

import asyncio

from pawl.errors import LakeError
from pawl.lake.journal import Journal
from pawl.lake.records import Record


class Recorder:
    """Group commit in front of the journal."""

    def __init__(self, journal: Journal, *, wait_for_disk: bool) -> None:
        self._journal, self._wait_for_disk = journal, wait_for_disk
        self._pending: list[tuple[list[Record], asyncio.Future[None]]] = []
        self._scheduled = False
        self._disk = asyncio.Lock()

    async def record(self, *records: Record) -> None:
        """Returns when the records are in the journal. LakeError where it cannot be written."""
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._pending.append((list(records), done))
        if not self._scheduled:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._begin)
        await done

    def _begin(self) -> None:
        self._scheduled = False
        group, self._pending = self._pending, []
        if self._wait_for_disk:
            # A sync takes milliseconds: not on the event loop.
            self._task = asyncio.ensure_future(self._in_thread(group))
        else:
            self._write(group, *self._append(group))

    def _append(self, group: list[tuple[list[Record], asyncio.Future[None]]]) -> tuple[LakeError | None]:
        try:
            self._journal.append([r for records, _ in group for r in records])
        except LakeError as e:
            return (e,)
        return (None,)

    async def _in_thread(self, group: list[tuple[list[Record], asyncio.Future[None]]]) -> None:
        async with self._disk:
            failed = await asyncio.to_thread(self._append, group)
        self._write(group, *failed)

    @staticmethod
    def _write(group: list[tuple[list[Record], asyncio.Future[None]]], failed: LakeError | None) -> None:
        for _, done in group:
            if done.cancelled():
                continue
            if failed is None:
                done.set_result(None)
            else:
                done.set_exception(failed)
