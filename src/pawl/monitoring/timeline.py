"""Where the time of a loop went: model, waiting for evidence, or orchestration (the rest)."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import msgspec

Kind = Literal["model", "waiting", "install"]


class Span(msgspec.Struct, frozen=True):
    """One stretch of time, epoch seconds."""

    kind: Kind
    name: str
    start: float
    end: float


class Split(msgspec.Struct, frozen=True):
    """Seconds of wall time by what they were spent on; the four add up to `wall`."""

    wall: float
    model: float
    waiting: float
    install: float
    orchestration: float


@contextmanager
def span(path: Path, kind: Kind, name: str) -> Iterator[None]:
    """Record how long the body took, also when it fails."""
    start = time.time()
    try:
        yield
    finally:
        record(path, Span(kind, name, start, time.time()))


def record(path: Path, item: Span) -> None:
    """Append one span; one write call, so that processes do not tear each other's lines."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(handle, msgspec.json.encode(item) + b"\n")
    finally:
        os.close(handle)


def read(path: Path) -> list[Span]:
    """All spans recorded so far."""
    if not path.exists():
        return []
    return [msgspec.json.decode(line, type=Span) for line in path.read_bytes().splitlines() if line.strip()]


def split(spans: list[Span], sessions: list[tuple[float, float]]) -> Split:
    """Divide the sessions' wall time (pure).

    Where spans of different kinds overlap, model time wins over waiting and waiting over installation: a
    rollout that waits for evidence while the model decodes is model-bound.
    """
    wall = sum(end - start for start, end in sessions)
    taken: list[tuple[float, float]] = []
    seconds: dict[str, float] = {}
    for kind in ("model", "waiting", "install"):
        mine = [(max(s.start, a), min(s.end, b)) for s in spans if s.kind == kind for a, b in sessions]
        merged = _union([*taken, *[(a, b) for a, b in mine if b > a]])
        seconds[kind] = _length(merged) - _length(taken)
        taken = merged
    rest = max(0.0, wall - _length(taken))
    return Split(wall, seconds["model"], seconds["waiting"], seconds["install"], rest)


def _union(intervals: list[tuple[float, float]]) -> list[tuple[float, float]]:
    merged: list[tuple[float, float]] = []
    for start, end in sorted(intervals):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(merged[-1][1], end))
        else:
            merged.append((start, end))
    return merged


def _length(intervals: list[tuple[float, float]]) -> float:
    return sum(b - a for a, b in intervals)


def sessions(path: Path, now: float) -> list[tuple[float, float]]:
    """Stretches in which somebody ran the loop: pairs of start and last sign of life, one JSON line each.

    The file is written by `beat`; a session that is still running ends at its last beat, or `now` within 10 s of it.
    """
    if not path.exists():
        return []
    ends: dict[float, float] = {}
    for line in path.read_bytes().splitlines():
        start, last = msgspec.json.decode(line, type=tuple[float, float])
        ends[start] = last
    return [(start, now if now - last < 10 else last) for start, last in sorted(ends.items())]


def beat(path: Path, start: float, now: float) -> None:
    """A sign of life of the session that began at `start`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as handle:
        handle.write(msgspec.json.encode((start, now)) + b"\n")
