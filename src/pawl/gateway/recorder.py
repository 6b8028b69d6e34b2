"""Writes what happened: everything of one event-loop tick in one append, before any of its answers is complete."""

from __future__ import annotations

import asyncio

from pawl.lake.journal import Journal, encode_line
from pawl.lake.records import Record

Group = list[tuple[bytes, "asyncio.Future[None]"]]


class Recorder:
    """Group commit in front of the journal."""

    def __init__(self, journal: Journal, *, wait_for_disk: bool) -> None:
        self._journal, self._wait_for_disk = journal, wait_for_disk
        self._pending: Group = []
        self._scheduled = False
        self._disk = asyncio.Lock()
        self._running: set[asyncio.Task[None]] = set()  # the loop itself keeps only weak references

    async def record(self, *records: Record) -> None:
        """Returns when the records are in the journal. LakeError where it cannot be written."""
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        # Encoded here: a record that cannot be written fails its own request, not the others of its group.
        self._pending.append((b"".join(map(encode_line, records)), done))
        if not self._scheduled:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._begin)
        await done

    def _begin(self) -> None:
        self._scheduled = False
        group, self._pending = self._pending, []
        if self._wait_for_disk:
            # A sync takes milliseconds: not on the event loop.
            task = asyncio.ensure_future(self._in_thread(group))
            self._running.add(task)
            task.add_done_callback(self._running.discard)
        else:
            self._tell(group, self._append(group))

    def _append(self, group: Group) -> Exception | None:
        try:
            self._journal.append_lines(b"".join(lines for lines, _ in group))
        except Exception as e:  # whatever it is, nobody may be left waiting for ever
            return e
        return None

    async def _in_thread(self, group: Group) -> None:
        async with self._disk:
            failed = await asyncio.to_thread(self._append, group)
        self._tell(group, failed)

    @staticmethod
    def _tell(group: Group, failed: Exception | None) -> None:
        for _, done in group:
            if done.done():
                continue  # its request was cancelled; its record is written all the same
            if failed is None:
                done.set_result(None)
            else:
                done.set_exception(failed)
