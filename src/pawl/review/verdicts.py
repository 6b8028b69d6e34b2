"""What a review says: how many answers are right, how far raters agree, and what a quality score is worth (pure)."""

from __future__ import annotations

import hashlib
import math
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Literal, NamedTuple

import msgspec

from pawl.lake.records import Feedback
from pawl.review import agreement
from pawl.review.files import Reviews
from pawl.review.sample import BANDS, BEST, UNKNOWN, Fact, Rating, Sample, Sheet

Outcome = Literal["right", "wrong", "undecided", "waiting"]
_RANK = {name: rank for rank, name in enumerate((*(name for _, name in BANDS), BEST, UNKNOWN))}


class Accuracy(msgspec.Struct, frozen=True, kw_only=True):
    """What raters say of an agent's answers.

    `right`, `wrong`, `undecided` (a tie, or nobody could say) and `waiting` (fewer raters than it needs) count items of
    the sample. `estimate` is the share of the population that is right, strata weighed back, with its 95 % interval;
    nan where nothing is decided. `kappa` and `alpha` are None where they are not defined.
    """

    right: int
    wrong: int
    undecided: int
    waiting: int
    estimate: float
    lower: float
    upper: float
    raters: int
    kappa: float | None
    alpha: float | None
    review: str
    at: float  # epoch seconds at which the sample was drawn


class Row(NamedTuple):
    """One group of items in the report: a stratum, or all items of one band, class or arm."""

    name: str
    population: int
    right: int
    wrong: int
    undecided: int
    waiting: int
    share: agreement.Estimate


class Pair(NamedTuple):
    """An item whose quality score is known and on which raters decided. `weight`: what it stands for."""

    quality: float
    right: bool
    weight: float


def accuracy(sample: Sample, ratings: Collection[Rating]) -> Accuracy:
    """The share of an agent's answers that the majority of raters call right."""
    decided = outcomes(sample.sheet, ratings)
    tally = Counter(decided.values())
    share = agreement.weighted(_strata(sample, decided))
    units = agreement.counted(_said(sample.sheet, ratings))
    return Accuracy(
        right=tally["right"],
        wrong=tally["wrong"],
        undecided=tally["undecided"],
        waiting=tally["waiting"],
        estimate=math.nan if share.value is None else share.value,
        lower=share.lower or 0.0,
        upper=1.0 if share.upper is None else share.upper,
        raters=len({r.rater for r in _mine(sample.sheet, ratings)}),
        kappa=agreement.kappa(units),
        alpha=agreement.alpha(units),
        review=sample.sheet.id,
        at=sample.sheet.at,
    )


def latest_accuracy(folder: Path, agent: str) -> Accuracy | None:
    """Of the newest review that is complete, else of the newest with anything decided; None where nobody has rated.

    `folder`: PAWL_HOME/reviews. A review that has just begun does not hide the one before it.
    """
    reviews, partly = Reviews(folder), None
    for sheet in reversed(reviews.all(agent)):
        found = accuracy(reviews.sample(agent, sheet.id), reviews.ratings(agent, sheet.id))
        if found.right + found.wrong:
            if not found.waiting:
                return found
            partly = partly or found
    return partly


def outcomes(sheet: Sheet, ratings: Collection[Rating]) -> dict[str, Outcome]:
    """Item -> what the majority of its raters say; "can't say" has no vote."""
    votes: dict[str, Counter[str]] = defaultdict(Counter)
    for r in ratings:
        votes[r.item][r.verdict] += 1

    def of(item: str) -> Outcome:
        given = votes[item]
        if given.total() < sheet.raters:
            return "waiting"
        if given["right"] == given["wrong"]:
            return "undecided"
        return "right" if given["right"] > given["wrong"] else "wrong"

    return {i.id: of(i.id) for i in sheet.items}


def groups(sample: Sample, ratings: Collection[Rating], by: Literal["stratum", "band", "scenario", "arm"]) -> list[Row]:
    """Accuracy of the items by stratum, band, class or arm.

    Within a band, class or arm an item weighs as much as its stratum's share of the population says. `population` is
    exact for strata and bands; of merged strata it is what the sample lets expect.
    """
    decided = outcomes(sample.sheet, ratings)
    members: dict[str, list[Fact]] = defaultdict(list)
    for fact in _facts(sample):
        members[getattr(fact, by)].append(fact)
    drawn = Counter(f.stratum for f in _facts(sample))
    rows = []
    for name, facts in sorted(members.items(), key=lambda m: (_RANK.get(m[0].partition(" / ")[0], 0), m[0])):
        tally = Counter(decided[f.item] for f in facts)
        here = Counter(f.stratum for f in facts)
        sizes = {s: sample.hidden.population[s] * k / drawn[s] for s, k in here.items()}
        strata = [
            agreement.Stratum(
                sizes[s],
                sum(decided[f.item] in ("right", "wrong") for f in facts if f.stratum == s),
                sum(decided[f.item] == "right" for f in facts if f.stratum == s),
            )
            for s in sizes
        ]
        right, wrong, undecided, waiting = (tally[o] for o in ("right", "wrong", "undecided", "waiting"))
        share = agreement.weighted(strata)
        rows.append(Row(name, round(sum(sizes.values())), right, wrong, undecided, waiting, share))
    return rows


def agreements(
    sheet: Sheet, ratings: Collection[Rating], level: float = 0.05, seed: int = 0
) -> dict[str, agreement.Estimate]:
    """Raw agreement, kappa and alpha on "right" and "wrong" with bootstrap intervals; "can't say" counts as missing."""
    units = agreement.counted(_said(sheet, ratings))
    measures = {"raw": agreement.raw, "kappa": agreement.kappa, "alpha": agreement.alpha}
    return {name: agreement.with_interval(measure, units, level, seed) for name, measure in measures.items()}


def disagreements(sheet: Sheet, ratings: Collection[Rating]) -> list[tuple[str, list[Rating]]]:
    """(item, its ratings) wherever somebody says right and somebody wrong."""
    found: dict[str, list[Rating]] = defaultdict(list)
    for r in sorted(_mine(sheet, ratings), key=lambda r: r.rater):
        found[r.item].append(r)
    return [(item, given) for item, given in found.items() if {"right", "wrong"} <= {r.verdict for r in given}]


def feedback(sample: Sample, ratings: Iterable[Rating], key_id: str) -> list[Feedback]:
    """Ratings as the lake keeps them. Ids come from the content, so that the same again change nothing.

    "Can't say" says nothing of the answer and gives no rating.
    """
    sheet, interactions = sample.sheet, {f.item: f.interaction for f in sample.hidden.facts}
    made = []
    for r in _mine(sheet, ratings):
        about = interactions[r.item]
        if r.verdict != "cannot_say":
            detail = {"review": sheet.id, "comment": r.comment}
            made.append(_feedback(sheet, r, about, key_id, "rating", 1.0 if r.verdict == "right" else 0.0, detail))
        if r.correction:
            detail = {"review": sheet.id, "completion": r.correction}
            made.append(_feedback(sheet, r, about, key_id, "correction", None, detail))
    return made


def pairs(sample: Sample, ratings: Collection[Rating]) -> list[Pair]:
    """What a calibration learns from."""
    decided = outcomes(sample.sheet, ratings)
    facts = _facts(sample)
    drawn = Counter(f.stratum for f in facts)
    return [
        Pair(f.quality, decided[f.item] == "right", sample.hidden.population[f.stratum] / drawn[f.stratum])
        for f in facts
        if f.quality is not None and decided[f.item] in ("right", "wrong")
    ]


def _feedback(
    sheet: Sheet,
    r: Rating,
    about: str,
    key_id: str,
    kind: Literal["rating", "correction"],
    score: float | None,
    detail: dict[str, str],
) -> Feedback:
    content = msgspec.json.encode([sheet.id, r.item, r.rater, kind, score, detail])
    return Feedback(
        id=f"review-{hashlib.sha256(content).hexdigest()[:32]}",
        at=r.at,
        interaction=about,
        agent=sheet.agent,
        kind=kind,
        score=score,
        detail=detail,
        source=f"review:{r.rater}",
        key_id=key_id,
    )


def _strata(sample: Sample, decided: dict[str, Outcome]) -> list[agreement.Stratum]:
    tally: dict[str, Counter[str]] = defaultdict(Counter)
    for f in _facts(sample):
        tally[f.stratum][decided[f.item]] += 1
    return [
        agreement.Stratum(sample.hidden.population[name], n["right"] + n["wrong"], n["right"])
        for name, n in tally.items()
    ]


def _facts(sample: Sample) -> list[Fact]:
    """Of the items that are still there: an erased person's are not."""
    known = {i.id for i in sample.sheet.items}
    return [f for f in sample.hidden.facts if f.item in known]


def _mine(sheet: Sheet, ratings: Iterable[Rating]) -> list[Rating]:
    known = {i.id for i in sheet.items}
    return [r for r in ratings if r.item in known]


def _said(sheet: Sheet, ratings: Iterable[Rating]) -> list[tuple[str, str, str]]:
    return [(r.item, r.rater, r.verdict) for r in _mine(sheet, ratings) if r.verdict != "cannot_say"]
