"""Which orchestrated runs have no process any more, and what is to become of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Literal

import msgspec

Verdict = Literal["alive", "start again", "mark", "give up"]


class SeenRun(msgspec.Struct, frozen=True, kw_only=True):
    """A run as the orchestrator tells of it. Times in epoch seconds."""

    id: str
    flow: str
    state: Literal["running", "pending", "crashed"]
    since: float  # when it came into that state
    heard: float | None = None  # its latest heartbeat
    times: int = 0  # that it was started again before
    in_cluster: bool = False  # its pod may wait for a node or a GPU, and its pool's worker watches that


class Patience(msgspec.Struct, frozen=True, kw_only=True):
    """How long a run may be silent, and how often it is started again."""

    silent_s: float | None  # without a heartbeat; None: nobody sends any, so their absence says nothing
    pending_s: float  # between a worker's taking it and its first step
    waiting_s: float  # the same on a cluster: longer than its worker waits itself, so that it is for a worker that died
    within_s: float  # crashes longer ago are history
    most: int  # starts after the first


def verdict(run: SeenRun, now: float, patience: Patience, again: tuple[str, ...]) -> Verdict:
    """What to do with a run (pure). `again`: flows that are started again; others come by themselves."""
    if run.state == "crashed":
        if now - run.since > patience.within_s or run.flow not in again:
            return "alive"  # nothing to do
        return "start again" if run.times < patience.most else "give up"
    pending_s = patience.waiting_s if run.in_cluster else patience.pending_s
    limit = pending_s if run.state == "pending" else patience.silent_s
    if limit is None or now - max(run.since, run.heard or 0.0) <= limit:
        return "alive"
    if run.flow not in again:
        return "mark"
    return "start again" if run.times < patience.most else "give up"


def silent_throughout(
    runs: Sequence[str],
    lives: Callable[[str], bool],
    *,
    for_s: float,
    gap_s: float,
    every_s: float = 5.0,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> tuple[str, ...]:
    """Those of the silent runs that give no sign of life for `for_s` seconds more, while the orchestrator answers.

    After an outage every run is silent: nobody's heartbeat was taken, and the first new ones need their time. So a
    silence counts only where the orchestrator was there to hear: nobody is named where it left a question of `lives`
    without an answer for more than `gap_s`. An error of `lives` is passed on.
    """
    left, end, answered = tuple(runs), clock() + for_s, clock()
    while left and (rest := end - clock()) > 0:
        sleep(min(every_s, rest))
        left = tuple(run for run in left if not lives(run))
        if clock() - answered > gap_s + every_s:
            return ()
        answered = clock()
    return left
