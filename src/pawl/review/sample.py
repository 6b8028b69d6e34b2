"""A blind sample of answers for people to rate: how it is drawn, and who rates what (pure).

Strata are quality band x scenario class x arm. What raters may see (the `Sheet`) and what they may not (the rest of
the `Sample`) are apart from the start, and go to different files.
"""

from __future__ import annotations

import hashlib
import math
import random
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import msgspec

from pawl.errors import NotAllowed, NotEnoughData
from pawl.lake.records import Interaction
from pawl.rollout.differences import failed
from pawl.scrubbing.scrub import Scrubber

Verdict = Literal["right", "wrong", "cannot_say"]
Cell = tuple[str, ...]  # quality band, scenario class, arm; fewer where it was merged with others

QUESTION = "Would you use this answer as it is?"
BANDS = ((0.5, "quality below 0.5"), (0.8, "quality 0.5 to 0.8"), (0.99, "quality 0.8 to 0.99"))
BEST, UNKNOWN = "quality 0.99 and more", "quality unknown"
LEAST_EXPECTED = 3  # items that a proportional sample would take of a stratum, else it is merged
_RATER = re.compile(r"[a-z0-9][a-z0-9._-]{0,39}")


class Turn(msgspec.Struct, frozen=True):
    """One message of a prompt."""

    role: str
    text: str


class Shown(msgspec.Struct, frozen=True):
    """All that a rater sees of an answer."""

    id: str
    prompt: tuple[Turn, ...]
    answer: str


class Sheet(msgspec.Struct, frozen=True, kw_only=True):
    """What raters see, in the order drawn."""

    v: int = 1
    id: str
    agent: str
    at: float  # epoch seconds at which it was drawn
    raters: int  # different people who rate each item
    question: str = QUESTION
    items: tuple[Shown, ...]


class Fact(msgspec.Struct, frozen=True):
    """What a rater must not know of an item."""

    item: str
    interaction: str
    stratum: str
    band: str
    scenario: str
    arm: str
    quality: float | None  # at the moment of drawing, without the word of earlier reviews


class Hidden(msgspec.Struct, frozen=True, kw_only=True):
    """What raters must not see."""

    v: int = 1
    seed: int
    population: dict[str, int]  # stratum -> interactions in it
    scrubbed: dict[str, int] = {}  # kind of personal data or secret -> occurrences replaced
    facts: tuple[Fact, ...]


class Sample(NamedTuple):
    """A review: both halves."""

    sheet: Sheet
    hidden: Hidden


class Rating(msgspec.Struct, frozen=True, kw_only=True):
    """One rater's word on one item."""

    item: str
    rater: str
    verdict: Verdict
    at: float  # epoch seconds
    correction: str | None = None  # the answer as it should have been
    comment: str = ""


class Progress(msgspec.Struct, frozen=True):
    """How far a rater is, and the review."""

    mine: int  # ratings of this rater
    left: int  # items that this rater could still be dealt
    given: int  # ratings of all, beyond what an item needs not counted
    wanted: int


def rater_name(text: str) -> str:
    """A rater's name as it is kept: lower case, so that nobody rates twice as Ann and ann. NotAllowed otherwise."""
    name = text.strip().lower()
    if not _RATER.fullmatch(name):
        raise NotAllowed(f"{text!r} is no rater's name: take 1 to 40 letters a-z, digits, dots, dashes or underscores")
    return name


def draw(
    agent: str,
    interactions: Sequence[Interaction],
    quality: Mapping[str, float],
    scrubber: Scrubber,
    scenario: Callable[[Interaction], str],
    *,
    items: int,
    seed: int,
    now: float,
    raters: int = 2,
    question: str = QUESTION,
) -> Sample:
    """A stratified random sample of answers, de-identified. The same lake and seed give the same review.

    `quality`: interaction id -> 0..1 where known. Drafts that a cascade kept back, failures and embeddings are no
    answers; what answered in shadow is. NotEnoughData where nothing is left to draw from.
    """
    calls = [i for i in interactions if has_answer(i)]
    if not calls:
        raise NotEnoughData(f"{agent} has no answers to review in this window; look further back, or let it work first")
    cells = [(band(quality.get(i.id)), scenario(i) or "no class", i.arm) for i in calls]
    names = [" / ".join(c) for c in coarsened(cells, items)]
    population = dict(sorted(Counter(names).items()))
    members: dict[str, list[int]] = defaultdict(list)
    for n, name in enumerate(names):
        members[name].append(n)
    rng = random.Random(seed)
    taken = [n for name, k in allocate(population, items).items() for n in rng.sample(members[name], k)]
    rng.shuffle(taken)
    digest = _digest(agent, seed, raters, question, *(calls[n].id for n in taken))
    shown, facts = [], []
    scrubbed: Counter[str] = Counter()
    for n in taken:
        call, identity = calls[n], _digest(digest, calls[n].id)
        # One item a call: pseudonyms hold within an item and say nothing across items.
        texts, found = scrubber.scrub(_texts(call))
        scrubbed.update(found)
        roles = [str(m.get("role", "")) for m in call.messages]
        shown.append(Shown(identity, tuple(map(Turn, roles, texts[:-1])), texts[-1]))
        facts.append(Fact(identity, call.id, names[n], *cells[n], quality.get(call.id)))
    return Sample(
        Sheet(id=digest, agent=agent, at=now, raters=raters, question=question, items=tuple(shown)),
        Hidden(seed=seed, population=population, scrubbed=dict(scrubbed), facts=tuple(facts)),
    )


def has_answer(call: Interaction) -> bool:
    """Whether a person could rate it: retention may have taken its text."""
    whole = call.status == 200 and not failed(call) and call.role != "draft" and call.endpoint != "embeddings"
    return whole and bool(call.messages) and bool(call.completion or call.tool_calls)


def band(quality: float | None) -> str:
    """The band of a quality, 0..1."""
    if quality is None:
        return UNKNOWN
    return next((name for edge, name in BANDS if quality < edge), BEST)


def coarsened(cells: Sequence[Cell], items: int) -> list[Cell]:
    """The stratum of each cell: small ones are merged, first over arms, then over classes, never over bands.

    Small: a proportional sample of that many items would take fewer than LEAST_EXPECTED of it.
    """
    strata = list(cells)
    for keep in (2, 1):
        sizes = Counter(strata)
        strata = [s[:keep] if len(s) > keep and sizes[s] * items < LEAST_EXPECTED * len(strata) else s for s in strata]
    return strata if len(set(strata)) <= items else [("all",)] * len(strata)


def allocate(population: Mapping[str, int], items: int) -> dict[str, int]:
    """How many items each stratum gives: in proportion to the square root of its size, at least 2 where that fits.

    The square root lets small strata be seen (power allocation, Bankier 1988); `review.accuracy` weighs it back.
    """
    least = 2 if 2 * len(population) <= items else 1
    given = {name: min(size, least) for name, size in population.items()}
    for _ in range(min(items, sum(population.values())) - sum(given.values())):
        open_ones = [name for name, size in population.items() if given[name] < size]
        best = max(open_ones, key=lambda name: (math.sqrt(population[name]) / (2 * given[name] + 1), name))
        given[best] += 1
    return given


def next_item(
    sheet: Sheet, ratings: Collection[Rating], rater: str, held: Collection[tuple[str, str]] = ()
) -> Shown | None:
    """What this rater is dealt now: never an item twice, each item to `sheet.raters` people, orders differ by rater.

    `held`: (item, rater) of what others have before them at this moment. None where nothing is left for this rater.
    """
    return next(iter(_open(sheet, ratings, rater, held)), None)


def progress(sheet: Sheet, ratings: Collection[Rating], rater: str) -> Progress:
    """How far it is."""
    raters = _raters(ratings)
    return Progress(
        mine=sum(rater in raters[i.id] for i in sheet.items),
        left=len(_open(sheet, ratings, rater, ())),
        given=sum(min(sheet.raters, len(raters[i.id])) for i in sheet.items),
        wanted=sheet.raters * len(sheet.items),
    )


def _open(sheet: Sheet, ratings: Collection[Rating], rater: str, held: Collection[tuple[str, str]]) -> list[Shown]:
    raters = _raters(ratings)
    for item, who in held:
        if who != rater:
            raters[item].add(who)
    mine = [i for i in sheet.items if rater not in raters[i.id] and len(raters[i.id]) < sheet.raters]
    return sorted(mine, key=lambda i: _digest(sheet.id, rater, i.id))


def _raters(ratings: Collection[Rating]) -> defaultdict[str, set[str]]:
    found: defaultdict[str, set[str]] = defaultdict(set)
    for r in ratings:
        found[r.item].add(r.rater)
    return found


def _texts(call: Interaction) -> list[str]:
    """Each message's text, then the answer's."""
    return [*map(_text, call.messages), _joined(call.completion, call.tool_calls)]


def _text(message: Mapping[str, Any]) -> str:
    content = message.get("content")
    if isinstance(content, list):
        parts = [p for p in content if isinstance(p, dict)]
        content = "\n".join(str(p["text"]) if "text" in p else f"[{p.get('type', 'part')}]" for p in parts)
    return _joined("" if content is None else str(content), message.get("tool_calls"))


def _joined(text: str, tool_calls: Any) -> str:
    called = msgspec.json.encode([c.get("function", c) for c in tool_calls]).decode() if tool_calls else ""
    return "\n".join(part for part in (text, called) if part)


def _digest(*parts: object) -> str:
    return hashlib.sha256("\0".join(map(str, parts)).encode()).hexdigest()[:12]
