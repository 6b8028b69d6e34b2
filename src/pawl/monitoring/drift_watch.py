"""The watch over one champion's traffic: what is usual, the tests of every kind, and what was found (no I/O)."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from math import ceil, log10

import msgspec

from pawl.monitoring import drift_embedding_sklearn as embedding
from pawl.monitoring.drift_betting import Evidence, part_of_week
from pawl.monitoring.drift_values import (
    FIT,
    KINDS,
    Kind,
    Number,
    Session,
    asked,
    class_of,
    fields_of,
    plain,
    surprise,
)
from pawl.qe.task import Task

MOST_POINTS = 600  # of the history that plots are drawn from
_NEWEST = 100  # sessions whose mean is shown as that of now


class Usual(msgspec.Struct, kw_only=True):
    """What a learnt kind holds for usual: first what it learns from, then only what it learnt."""

    classes: list[str] = []
    vectors: list[list[float]] = []
    counts: dict[str, int] = {}
    middles: list[list[float]] = []


class Means(msgspec.Struct, kw_only=True):
    """Means for people: of what is compared with, and of the newest."""

    total: float = 0.0
    sessions: int = 0
    newest: list[float] = []

    def take(self, shown: float, reference: bool) -> None:
        """One session's number."""
        if reference:
            self.total, self.sessions = self.total + shown, self.sessions + 1
        else:
            self.newest = [*self.newest[1 - _NEWEST :], shown]

    @property
    def before(self) -> float | None:
        return self.total / self.sessions if self.sessions else None

    @property
    def now(self) -> float | None:
        return sum(self.newest) / len(self.newest) if self.newest else None


class Point(msgspec.Struct, frozen=True):
    """The evidence of every kind at one moment (epoch seconds), as its decimal logarithm."""

    at: float
    evidence: dict[str, float]


class Watch(msgspec.Struct, kw_only=True):
    """All that the next look needs. Its size does not grow with the traffic (`drift_betting.MOST`)."""

    v: int = 1
    agent: str
    champion: str
    anchor: float  # epoch seconds: what came before is what is compared with, and no look alarms on it
    alpha: float
    compared_since: float | None = None  # epoch seconds: nothing older is compared with
    answers_through: float  # requests and answers of sessions that began before are in
    feedback_through: float  # ... and what came of them
    tests: dict[Kind, Evidence] = {}
    usual: dict[Kind, Usual] = {}
    means: dict[Kind, Means] = {}
    found: dict[Kind, float] = {}  # kind -> epoch seconds of the session that showed the drift
    changed: float | None = None  # epoch seconds: the newest change of traffic that is over or was an earlier watch's
    history: list[Point] = []
    step: int = 1  # how many looks one point of the history stands for
    looks: int = 0

    @property
    def threshold(self) -> float:
        """The evidence at which a kind has drifted: all kinds together err with `alpha` at most."""
        return len(KINDS) / self.alpha

    @property
    def newest_change(self) -> float | None:
        """When traffic last changed, as far as this watch and those before it saw: a drift shown, or its end."""
        known = [*self.found.values(), *([] if self.changed is None else [self.changed])]
        return max(known, default=None)


def begin(
    agent: str,
    champion: str,
    anchor: float,
    *,
    alpha: float,
    reference_s: float,
    quarter_s: float,
    changed: float | None = None,
) -> Watch:
    """A watch that has seen nothing yet, and begins to read `reference_s` before `anchor`.

    Not before `changed`, the watch's before it `newest_change`: what came earlier is not what its champion was made
    for, and compared with it one change would be found again under every new champion. A watch that so has too little
    to compare with waits until enough has come (`drift_betting.LEAST`).
    """
    start = (anchor - reference_s) // quarter_s * quarter_s
    if changed is not None:
        start = max(start, ceil(changed / quarter_s) * quarter_s)
    return Watch(
        agent=agent,
        champion=champion,
        anchor=anchor,
        alpha=alpha,
        compared_since=start,
        answers_through=start,
        feedback_through=start,
        changed=changed,
    )


def take(watch: Watch, sessions: Sequence[Session], task: Task, *, late: bool) -> None:
    """Sessions in order of time: their requests and answers, or (`late`) what came of them."""
    learnt = [] if late else embedding.vectors([task.content_of(asked(s).messages) for s in sessions])
    for n, session in enumerate(sessions):
        for kind, number in plain(session, task, watch.champion, late).items():
            _rank(watch, kind, session, number)
        if late:
            continue
        _categorical(watch, "input_fields", session, fields_of(asked(session)))
        _embedded(watch, session, learnt[n])
        answered = class_of(session, task, watch.champion)
        if answered is not None:
            _categorical(watch, "output_class", session, answered)


def looked(watch: Watch, at: float) -> list[Kind]:
    """After all sessions of a look: note the evidence, and end what has ended; returns the kinds that did."""
    ended = [kind for kind in watch.found if watch.tests[kind].looks_well()]
    for kind in ended:
        del watch.found[kind]
        watch.tests[kind].begin_anew()
        watch.changed = at  # what came while it was on is nothing that a next watch should compare with
    watch.looks += 1
    if watch.looks % watch.step == 0:
        noted = {str(kind): round(log10(max(1e-9, test.wealth)), 3) for kind, test in watch.tests.items()}
        watch.history.append(Point(at, noted))
    if len(watch.history) > MOST_POINTS:
        watch.history, watch.step = watch.history[1::2], 2 * watch.step
    return ended


def _categorical(watch: Watch, kind: Kind, session: Session, name: str) -> None:
    usual = watch.usual.setdefault(kind, Usual())
    if not usual.counts:
        usual.classes.append(name)
        if len(usual.classes) >= FIT:
            usual.counts, usual.classes = dict(Counter(usual.classes)), []
        return
    value = surprise(usual.counts, name)
    _rank(watch, kind, session, Number(value, value))


def _embedded(watch: Watch, session: Session, vector: list[float]) -> None:
    usual = watch.usual.setdefault("input_embedding", Usual())
    if not usual.middles:
        usual.vectors.append(vector)
        if len(usual.vectors) >= FIT:
            usual.middles, usual.vectors = embedding.centres(usual.vectors), []
        return
    (value,) = embedding.distances([vector], usual.middles)
    _rank(watch, "input_embedding", session, Number(value, value))


def _rank(watch: Watch, kind: Kind, session: Session, number: Number) -> None:
    test = watch.tests.setdefault(kind, Evidence())
    # Made from what is ranked, so that the same records give the same evidence; uniform all the same.
    chance = random.Random(f"{watch.agent} {watch.champion} {kind} {session.id} {session.at}").random()
    reference = session.at < watch.anchor
    test.take(number.ranked, part_of_week(session.at), chance, reference=reference, found=kind in watch.found)
    watch.means.setdefault(kind, Means()).take(number.shown, reference or not test.newest)
    if kind not in watch.found and test.peak >= watch.threshold:
        watch.found[kind] = session.at
        test.newest = []  # its end is judged by what comes from here on
