"""Candidates with what they are about, without what repeats something better or something held out."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from pawl.curation.candidates_duckdb import Candidate, Candidates
from pawl.curation.dataset import Split, Step
from pawl.fleet.data import DataSpec
from pawl.qe.task import Task

if TYPE_CHECKING:
    from pawl.curation.topics_sklearn import Vectors

_IDENTIFIER = re.compile(r"[\w./:-]{1,100}")
ORDER: tuple[Split, ...] = ("test", "validation", "train")  # what is held out comes first: training gives way


class HeldOut(NamedTuple):
    """A task that evaluation uses, as `Task.content_of` gives it."""

    content: str
    split: Split  # test or validation; regression items are test


class Entry(NamedTuple):
    """A candidate that was looked at."""

    candidate: Candidate
    source: str
    split: Split
    content: str


@dataclass(frozen=True)
class Pool:
    """What is left to select from, and the step each of the others fell at."""

    entries: list[Entry]
    steps: list[Step] = field(default_factory=list)

    def of(self, split: Split) -> list[Entry]:
        """Those of one split."""
        return [e for e in self.entries if e.split == split]


def gather(
    candidates: Candidates,
    task: Task,
    side: Callable[[str], Split],
    reserved: frozenset[str],
    tell: Callable[[int, int], None] = lambda done, total: None,
) -> Pool:
    """Read the candidates' prompts; keep those of sources that are not reserved for the regression suite.

    The source is what the prompt itself names; what a client says of it counts only where the prompt names none. A
    client that sends no metadata, or a wrong one, must not carry held-out tasks into training.
    """
    entries: list[Entry] = []
    total = candidates.steps[-1].left
    kept_back = seen = 0
    for rows, prompts in candidates.prompts():
        for candidate, prompt in zip(rows, prompts, strict=True):
            messages: list[dict[str, Any]] = msgspec.json.decode(prompt)
            source = source_of(task, messages, candidate.named_source, candidate.prompt)
            if source in reserved:
                kept_back += 1
                continue
            entries.append(Entry(candidate, source, side(source), task.content_of(messages)))
        seen += len(rows)
        tell(seen, total)
    step = Step("of free sources", len(entries), kept_back, "the source belongs to the regression suite")
    return Pool(entries, [step])


def source_of(task: Task, messages: list[dict[str, Any]], named: str, prompt: str) -> str:
    """The source that the prompt names, else the one that the client named, else the prompt itself.

    A client's word is kept unscrubbed in many places: what is no plain identifier (a mail address, a sentence) is not
    taken. `prompt`: digest of the messages. A prompt of its own source lands in whichever split its digest says.
    """
    return task.source_of(messages) or (named if _IDENTIFIER.fullmatch(named) else f"prompt-{prompt[:12]}")


def without_near_duplicates(pool: Pool, held_out: Sequence[HeldOut], threshold: float) -> Pool:
    """One of each group of near-identical prompts: corrections first, then quality, then the newest."""
    from pawl.curation.duplicates_rensa import near_duplicates

    ranked = sorted(pool.entries, key=_rank)
    texts = [h.content for h in held_out] + [e.content for e in ranked]
    repeats = near_duplicates(texts, threshold, first=len(held_out))
    splits = [h.split for h in held_out] + [e.split for e in ranked]
    return _without(pool, ranked, repeats.tolist(), splits, len(held_out), ("distinct prompts", "is nearly the same"))


def without_same_meaning(
    pool: Pool, held_out: Sequence[HeldOut], spec: DataSpec, embed: Callable[[list[str]], Vectors] | None
) -> tuple[Pool, dict[str, int]]:
    """One of each group of prompts that mean the same, and the cluster of each that is left (by interaction id)."""
    from pawl.curation.topics_sklearn import clusters, same_meaning, vectors_of

    ranked = sorted(pool.entries, key=_rank)
    vectors = vectors_of([h.content for h in held_out] + [e.content for e in ranked], embed, spec.seed)
    if not ranked:
        return pool, {}
    first = len(held_out)
    groups = clusters(vectors, spec.clusters, spec.seed)
    numbers = {id_of(e): int(groups[first + n]) for n, e in enumerate(ranked)}
    if spec.semantic_duplicate is None:
        return pool, numbers
    repeats = same_meaning(vectors, groups, spec.semantic_duplicate, first)
    splits = [h.split for h in held_out] + [e.split for e in ranked]
    left = _without(pool, ranked, repeats.tolist(), splits, first, ("distinct in meaning", "means the same"))
    return left, numbers


def id_of(entry: Entry) -> str:
    """A candidate's own id: an answer and its correction are two."""
    return f"{entry.candidate.kind}:{entry.candidate.id}"


def near_held_out(contents: Sequence[str], held_out: Sequence[str], threshold: float) -> list[bool]:
    """Which of the contents nearly repeat one that is held out."""
    from pawl.curation.duplicates_rensa import near_duplicates

    # Of several similar ones the earliest is named, so what is held out before any other content.
    repeats = near_duplicates([*held_out, *contents], threshold, first=len(held_out))[len(held_out) :]
    return [0 <= r < len(held_out) for r in repeats.tolist()]


def _rank(e: Entry) -> tuple[int, bool, float, float, str]:
    c = e.candidate
    return ORDER.index(e.split), c.kind == "answer", -c.quality, -c.at, c.id


def _without(
    pool: Pool, ranked: list[Entry], repeats: list[int], splits: list[Split], first: int, words: tuple[str, str]
) -> Pool:
    """Drop what repeats. A recorded answer to a held-out task belongs beside it: that is no repetition."""
    kept, within, across = [], 0, 0
    for n, e in enumerate(ranked, start=first):
        other = repeats[n]
        if other < 0 or (other < first and splits[other] == e.split):
            kept.append(e)
        elif splits[other] == e.split:
            within += 1
        else:
            across += 1
    name, what = words
    now = len(pool.entries)
    steps = [
        *pool.steps,
        Step(name, now - within, within, f"{what} as a better or a newer one"),
        Step(f"{name} from what is held out", len(kept), across, f"{what} as one that is held out"),
    ]
    return Pool(kept, steps)
