"""The texts that were labelled by hand, and how well somebody finds what is labelled in them."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from pawl.scrubbing.scrub import Span

FILE = Path(__file__).parents[1] / "tests" / "data" / "scrub_labelled.jsonl"
# The file keeps no value in one piece that a code host's scanner would take for a live credential.
SPLIT = "␟"
# Without a model names and addresses are found as well as rules can: they are reported apart.
BEST_EFFORT = ("ADDRESS", "PERSON")


class Labelled(NamedTuple):
    """A text, and what is in it."""

    text: str
    spans: tuple[Span, ...]


def labelled() -> list[Labelled]:
    """All of them, in the order of the file."""
    rows = [json.loads(line) for line in FILE.read_text(encoding="utf-8").splitlines()]
    return [Labelled(r["text"].replace(SPLIT, ""), tuple(Span(*s) for s in r["spans"])) for r in rows]


@dataclass
class Tally:
    """Labels found and missed, and spans that no label asked for; by kind."""

    right: Counter[str] = field(default_factory=Counter)
    missed: Counter[str] = field(default_factory=Counter)
    false: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)  # for people

    def precision(self, kinds: Iterable[str]) -> float:
        """Share of the spans that a label asked for; 0 where there are none."""
        return _share(self.right, self.false, kinds)

    def recall(self, kinds: Iterable[str]) -> float:
        """Share of the labels that were found; 0 where there are none."""
        return _share(self.right, self.missed, kinds)


def tally(rows: Iterable[Labelled], find: Callable[[str], list[Span]]) -> Tally:
    """A label is found by a span of its kind that covers it whole, a name or an address by half of both together.

    A span is right where a label of its kind shares half of their common length.
    """
    made = Tally()
    for text, labels in rows:
        got = find(text)
        for label in labels:
            if any(_fits(g, label) and (label.kind in BEST_EFFORT or _covers(g, label)) for g in got):
                made.right[label.kind] += 1
            else:
                made.missed[label.kind] += 1
                made.wrong.append(f"missed {label.kind} {text[label.start : label.end]!r}")
        for g in got:
            if not any(_fits(g, label) for label in labels):
                made.false[g.kind] += 1
                made.wrong.append(f"false {g.kind} {text[g.start : g.end]!r}")
    return made


def _fits(a: Span, b: Span) -> bool:
    common = min(a.end, b.end) - max(a.start, b.start)
    return a.kind == b.kind and 2 * common >= max(a.end, b.end) - min(a.start, b.start)


def _covers(a: Span, b: Span) -> bool:
    return a.start <= b.start and b.end <= a.end


def _share(good: Counter[str], bad: Counter[str], kinds: Iterable[str]) -> float:
    kinds = list(kinds)
    total = sum(good[k] + bad[k] for k in kinds)
    return sum(good[k] for k in kinds) / total if total else 0.0
