"""Ends servers in the order in which they lean on each other; never a process that was not started here."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from itertools import groupby
from pathlib import Path

import msgspec

from pawl.errors import ConfigError
from pawl.platform.process import Server, recorded


class Ended(msgspec.Struct, frozen=True):
    """How one server ended: "stopped", "killed" (it did not go by itself), or "down" (it was gone already)."""

    name: str
    how: str
    seconds: float


def to_end(home: Path, only: Collection[str] = ()) -> list[Server]:
    """The servers with a record, in the order in which they are ended. ConfigError where a named one has none."""
    there = recorded(home)
    missing = sorted(set(only) - {s.name for s in there})
    if missing:
        known = ", ".join(s.name for s in there) or "none"
        raise ConfigError(
            "the choice of servers", [f"{n} was not started by `pawl up`; started: {known}" for n in missing]
        )
    return sorted((s for s in there if not only or s.name in only), key=lambda s: (s.stops, s.name))


def take_down(servers: list[Server], tell: Callable[[Ended], None]) -> list[Ended]:
    """End them: first the worker and the gateway, which drains; then what these lean on; the database last."""
    ended: list[Ended] = []

    def end(server: Server) -> None:
        began = time.monotonic()
        made = Ended(server.name, server.stop(), round(time.monotonic() - began, 1))
        ended.append(made)
        tell(made)

    for _, together in groupby(servers, key=lambda s: s.stops):
        these = list(together)
        with ThreadPoolExecutor(len(these)) as pool:
            list(pool.map(end, these))
    return ended
