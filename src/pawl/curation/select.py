"""Which of many good examples are learnt from: spread, balanced, the newest first, hard ones with room (pure)."""

from __future__ import annotations

import math
from collections import Counter, defaultdict, deque
from collections.abc import Sequence
from typing import Any, NamedTuple

from pawl.curation.focus import Focus, rooms
from pawl.fleet.data import DataSpec


class Pick(NamedTuple):
    """What selection looks at. `value` orders within a stratum: quality times the weight of its age."""

    source: str
    scenario: str
    cluster: int
    value: float
    at: float  # epoch seconds
    hard: int  # 0 to 2
    topic: str = ""  # the class that a comparison would count it in


class Selection(NamedTuple):
    """Rows in the order in which they were taken, and what kept the others out."""

    rows: list[int]
    capped: int  # a source or a scenario class had its share
    unneeded: int  # there was no room


def age_weight(at: float, now: float, half_life_days: float) -> float:
    """Halves with each half-life; 1 for what is from `now` or later."""
    return float(2.0 ** -(max(0.0, now - at) / 86_400 / half_life_days))


def select(picks: Sequence[Pick], most: int, spec: DataSpec, focus: Sequence[Focus] = ()) -> Selection:
    """At most `most` rows.

    Room of `spec.hard_share` is kept for prompts that the champion got wrong, those that it let stand first; room of
    `spec.failing_share` for the classes of `focus`; what these leave free goes to all. Rows are taken in turns: from
    scenario classes, within a class from clusters, within a cluster from sources, there the most valuable first. No
    source and no class gets more than its share of what there is room for, but never less than an even share.
    """
    room = min(most, len(picks))
    caps = _Caps(picks, room, spec)
    hard = [n for n, p in enumerate(picks) if p.hard]
    first: list[int] = []
    for level in (2, 1):
        left = round(spec.hard_share * room) - len(first)
        first += _turns(picks, [n for n in hard if picks[n].hard == level], left, caps)
    taken = set(first)
    for name, amount in rooms(focus, min(round(spec.failing_share * room), room - len(first))).items():
        mine = [n for n, p in enumerate(picks) if p.topic == name and n not in taken]
        first += _turns(picks, mine, amount, caps)
    taken = set(first)
    rest = _turns(picks, [n for n in range(len(picks)) if n not in taken], room - len(first), caps)
    rows = first + rest
    chosen = set(rows)
    capped = sum(caps.bound(p) for n, p in enumerate(picks) if n not in chosen)
    return Selection(rows, capped, len(picks) - len(rows) - capped)


class _Caps:
    """How many more of a source and of a class may be taken."""

    def __init__(self, picks: Sequence[Pick], room: int, spec: DataSpec) -> None:
        self._room = room
        self._of = {
            "source": _cap(room, spec.max_source_share, {p.source for p in picks}),
            "scenario": _cap(room, spec.max_class_share, {p.scenario for p in picks}),
        }
        self._used: dict[str, Counter[str]] = {"source": Counter(), "scenario": Counter()}

    def bound(self, p: Pick) -> bool:
        """Its source or its class has its share, and that is less than the whole room."""
        return any(self._room > cap <= self._used[name][getattr(p, name)] for name, cap in self._of.items())

    def full(self, p: Pick) -> bool:
        used = self._used
        return used["source"][p.source] >= self._of["source"] or used["scenario"][p.scenario] >= self._of["scenario"]

    def take(self, p: Pick) -> bool:
        if self.full(p):
            return False
        self._used["source"][p.source] += 1
        self._used["scenario"][p.scenario] += 1
        return True


def _cap(room: int, share: float, names: set[str]) -> int:
    return math.ceil(room * max(share, 1 / max(1, len(names))))


def _turns(picks: Sequence[Pick], rows: list[int], most: int, caps: _Caps) -> list[int]:
    if most <= 0:
        return []
    rows.sort(key=lambda n: (picks[n].value, picks[n].at, n), reverse=True)
    strata: dict[str, dict[int, dict[str, deque[int]]]] = defaultdict(lambda: defaultdict(lambda: defaultdict(deque)))
    for n in rows:
        p = picks[n]
        strata[p.scenario][p.cluster][p.source].append(n)
    # Each level hands out turns in a ring: what is empty leaves it.
    classes = deque(deque(deque(sources.values()) for sources in groups.values()) for groups in strata.values())
    taken: list[int] = []
    while classes and len(taken) < most:
        groups = classes[0]
        sources = groups[0]
        queue = sources[0]
        n = queue.popleft()
        if caps.take(picks[n]):
            taken.append(n)
            classes.rotate(-1)
            groups.rotate(-1)
            sources.rotate(-1)
        _drop_empty(classes, groups, sources, queue)
    return taken


def _drop_empty(classes: deque[deque[deque[deque[int]]]], groups: deque[deque[deque[int]]],
                sources: deque[deque[int]], queue: deque[int]) -> None:  # fmt: skip
    if queue:
        return
    _leave(sources, queue)
    if not sources:
        _leave(groups, sources)
    if not groups:
        _leave(classes, groups)


def _leave(ring: deque[Any], item: Any) -> None:
    """By identity: rings of equal content are not the same ring. It is at one of the two ends."""
    if ring[0] is item:
        ring.popleft()
    else:
        ring.pop()
