"""What the watchdog keeps of an open rollout: its records, without what was said in them."""

from __future__ import annotations

import time
from math import inf
from typing import Any

import msgspec

from pawl.lake.parquet_lake import ParquetLake
from pawl.lake.records import Feedback, Interaction, Record
from pawl.rollout.state import Rollout

_REREAD_S = 2.0  # other gateways' records come through the lake
_LATELY_S = 900.0  # how old a record may be that such a reading finds
_WHOLE_S = 60.0  # the least time between two readings of everything: what came later than that is found too
_WHOLE_REST = 20  # and the rest after one, in times of what it took
_REST = 4  # after any other: a long journal takes its time to read


# One for all of them, and never changed: two lists each would be most of what the collector has to walk through.
_NOTHING: list[dict[str, Any]] = []


def essence(record: Interaction) -> Interaction:
    """The interaction without its texts: those of a long rollout would fill the memory, and no decision reads them."""
    return msgspec.structs.replace(record, messages=_NOTHING, completion="", tool_calls=_NOTHING, task={})


class Remembered:
    """The records of one rollout: those of this gateway as they are journalled, the others' from the lake."""

    def __init__(self, rollout: Rollout) -> None:
        self.rollout, self._agent, self._opened_at = rollout.id, rollout.agent, rollout.opened_at
        self._calls: dict[str, Interaction] = {}
        self._said: dict[str, Feedback] = {}
        self._read_at = self._whole_at = -inf
        self._took = self._whole_took = 0.0  # seconds

    def take(self, record: Record) -> None:
        """A record of this agent; those of other rollouts, and what no decision reads, are passed over."""
        if isinstance(record, Feedback):
            if record.kind != "correction":
                self._said[record.id] = msgspec.structs.replace(record, detail={}) if record.detail else record
        elif record.rollout == self.rollout:
            self._calls[record.id] = essence(record)

    def records(self) -> tuple[list[Interaction], list[Feedback]]:
        """All of them, as they are now."""
        return list(self._calls.values()), list(self._said.values())

    def due(self) -> bool:
        """Whether the lake should be read again."""
        return time.monotonic() - self._read_at >= max(_REREAD_S, _REST * self._took)

    def read(self, lake: ParquetLake, now: float) -> list[Record]:
        """What the lake holds of it, to be taken: all at first and now and then, otherwise what is recent.

        LakeError where it cannot be read; then it is due again as after any other reading.
        """
        began = self._read_at = time.monotonic()
        whole = began - self._whole_at >= max(_WHOLE_S, _WHOLE_REST * self._whole_took)
        since = self._opened_at if whole else max(self._opened_at, now - _LATELY_S)
        calls = [essence(i) for i in lake.interactions(self._agent, since) if i.rollout == self.rollout]
        said = lake.feedback(self._agent, since)
        self._read_at = time.monotonic()
        self._took = self._read_at - began
        if whole:
            self._whole_at, self._whole_took = self._read_at, self._took
        return [*calls, *said]
