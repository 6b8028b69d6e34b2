"""Scored sessions and the differences made of them: what the sequential tests are fed with (pure).

The unit is the session within a stage: its score is the mean over its scored interactions, because the turns of one
session are not independent. A difference is dated by the moment at which it became known, so that a later look only
appends to what an earlier look saw. (A session whose further turns are scored later has its mean revised: with many
such sessions the error probabilities hold only about.)
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from pawl.lake.records import Feedback, Interaction

Known = Mapping[str, tuple[float, float]]  # interaction id -> (score 0..1, epoch seconds at which it became known)


class Unit(NamedTuple):
    """A scored session within a stage."""

    known_at: float
    session: str
    stage: str
    score: float


class Difference(NamedTuple):
    """Challenger beside champion, each 0..1."""

    known_at: float
    stage: str
    mine: float
    theirs: float

    @property
    def value(self) -> float:
        """Challenger - champion, in [-1, 1]."""
        return self.mine - self.theirs


def scores(feedback: Iterable[Feedback]) -> dict[str, tuple[float, float]]:
    """Interaction id -> (score, when the first of its kind became known).

    The mean over sources of their latest outcome; ratings and acceptance count only where there is no outcome.
    """
    # Flat keys and tuples: with thousands of sessions, small containers cost more than the counting.
    latest: dict[tuple[str, str, str], tuple[float, str, float]] = {}
    first: dict[tuple[str, bool], float] = {}
    for f in feedback:
        if f.score is None or f.kind == "correction":
            continue
        mine, voice = (f.interaction, f.kind == "outcome"), (f.interaction, f.source, f.kind)
        told = (f.at, f.id, min(1.0, max(0.0, f.score)))
        before = latest.get(voice)
        if before is None or before < told:
            latest[voice] = told
        since = first.get(mine)
        if since is None or f.at < since:
            first[mine] = f.at
    sums: dict[str, tuple[float, int]] = {}
    for (interaction, _, kind), (_, _, score) in latest.items():
        if kind == "outcome" or (interaction, True) not in first:
            total, voices = sums.get(interaction, (0.0, 0))
            sums[interaction] = (total + score, voices + 1)
    return {
        interaction: (total / voices, first[interaction, (interaction, True) in first])
        for interaction, (total, voices) in sums.items()
    }


def units(calls: Iterable[Interaction], known: Known) -> list[Unit]:
    """One arm's scored sessions, as they became known. Calls that failed are passed over: see `failed`."""
    grouped: dict[tuple[str, str], tuple[float, float, int]] = {}  # (first known, sum of scores, how many)
    for call in calls:
        if call.id in known and not failed(call):
            mine, (score, at) = (call.session, call.stage or ""), known[call.id]
            since, total, turns = grouped.get(mine, (at, 0.0, 0))
            grouped[mine] = (min(since, at), total + score, turns + 1)
    return sorted(Unit(at, session, stage, total / turns) for (session, stage), (at, total, turns) in grouped.items())


def pairs(answered: Iterable[Interaction], shadows: Iterable[Interaction], known: Known) -> list[Difference]:
    """Sessions in shadow: the means over their pairs of the shadow's score and of what the client got."""
    by_id = {i.id: i for i in answered if i.id in known and not failed(i)}
    grouped: dict[str, list[tuple[float, float, float]]] = defaultdict(list)
    for shadow in shadows:
        mine = by_id.get(shadow.shadow_of or "")
        if mine is not None and shadow.id in known and not failed(shadow):
            (theirs, at), (score, later) = known[mine.id], known[shadow.id]
            grouped[mine.session].append((max(at, later), score, theirs))
    return sorted(
        Difference(
            min(at for at, _, _ in found), "shadow", _mean(m for _, m, _ in found), _mean(t for _, _, t in found)
        )
        for found in grouped.values()
    )


def blocks(stage: str, champion: Sequence[Unit], challenger: Sequence[Unit]) -> list[Difference]:
    """Sessions of one percentage stage: scored ones wait for the other arm, a block closes when it holds both.

    Its difference is that of its arms' means. Which arm a session goes to is a hash of its name and has nothing to do
    with its score, so given all earlier blocks the difference has the mean "challenger - champion", whatever the
    split. Each session is used once.
    """
    made: list[Difference] = []
    waiting: tuple[list[float], list[float]] = ([], [])
    arrivals = [(u, 0) for u in champion if u.stage == stage] + [(u, 1) for u in challenger if u.stage == stage]
    for unit, arm in sorted(arrivals):
        waiting[arm].append(unit.score)
        if waiting[0] and waiting[1]:
            theirs, mine = map(_mean, waiting)
            made.append(Difference(unit.known_at, stage, mine, theirs))
            waiting = ([], [])
    return made


def _mean(values: Iterable[float]) -> float:
    found = list(values)
    return sum(found) / len(found)


_THE_ARMS = (401, 403, 404, 408, 429)  # another arm may do better, as gateways see it too when they fall back
_HUNG_UP = 499  # the client did


def refused(call: Interaction) -> bool:
    """Whether the request itself was wrong: no arm could have answered it, so it says nothing of any."""
    return 400 <= call.status < 500 and call.status not in (*_THE_ARMS, _HUNG_UP)


def failed(call: Interaction) -> bool:
    """Whether the arm failed to answer. The error guardrail counts it; it is never a low score."""
    if call.status == _HUNG_UP or refused(call):  # nobody's failure
        return False
    return call.status == 0 or call.status >= 500 or call.error is not None or call.broken
