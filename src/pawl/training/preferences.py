"""Pairs of a better and a worse answer as training takes them: which of them, in what order, how much each (pure)."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence

import msgspec


class Sides(msgspec.Struct, frozen=True):
    """One pair as tokens. Both answers end with what ends a turn."""

    prompt: list[int]
    chosen: list[int]
    rejected: list[int]


class Rated(msgspec.Struct, frozen=True):
    """One answer and whether it was good."""

    prompt: list[int]
    completion: list[int]
    good: bool


def fitting(pairs: Sequence[Sides], max_tokens: int) -> list[Sides]:
    """Pairs of which both answers, with the prompt, have at most `max_tokens` tokens.

    A longer one is left out, not cut: of a cut answer nobody said that it is the better one.
    """
    return [p for p in pairs if len(p.prompt) + max(len(p.chosen), len(p.rejected)) <= max_tokens]


def rated(pairs: Sequence[Sides], max_tokens: int) -> list[Rated]:
    """Each answer of the pairs once, in their order, where it fits by itself.

    An answer that is the better one in one pair and the worse one in another says nothing alone, and is left out.
    """
    said: dict[tuple[tuple[int, ...], tuple[int, ...]], set[bool]] = {}
    for p in pairs:
        for completion, good in ((p.chosen, True), (p.rejected, False)):
            if len(p.prompt) + len(completion) <= max_tokens:
                said.setdefault((tuple(p.prompt), tuple(completion)), set()).add(good)
    return [Rated(list(x), list(y), True in marks) for (x, y), marks in said.items() if len(marks) == 1]


def class_weights(items: Sequence[Rated]) -> tuple[float, float]:
    """(weight of good, weight of bad) answers, so that both kinds count alike and the more frequent one counts 1.

    Source: KTO, arXiv 2402.01306, section 4.2, equation 8, at the lower of its two bounds.
    """
    counts = Counter(i.good for i in items)
    good, bad = counts[True], counts[False]
    if not good or not bad:
        return 1.0, 1.0
    return max(1.0, bad / good), max(1.0, good / bad)


def order(count: int, epochs: float, group: int, least: int, seed: int) -> list[int]:
    """Indices into `count` items in the order of training: each epoch is a new shuffle, a broken one takes its start.

    `group` items make a step; a last step of fewer than `least` is left out, unless it is the only one. The same
    arguments give the same order.
    """
    wanted = max(min(group, count), round(count * epochs))
    if wanted > group and wanted % group < least:
        wanted -= wanted % group
    rng = random.Random(seed)
    found: list[int] = []
    while len(found) < wanted:
        shuffled = list(range(count))
        rng.shuffle(shuffled)
        found += shuffled
    return found[:wanted]


def strangers(items: Sequence[Rated], group: int) -> list[list[int]]:
    """For each item an answer to another prompt of its group: what KTO's reference point is estimated from.

    Source: KTO, arXiv 2402.01306, section 4.1: mismatched outputs of the same batch. The nearest item before it, in a
    ring, that has another prompt; the very neighbour where all prompts of the group are the same.
    """
    found: list[list[int]] = []
    for start in range(0, len(items), group):
        batch = items[start : start + group]
        for at, item in enumerate(batch):
            ring = [batch[at - back] for back in range(1, len(batch) + 1)]
            other = next((o for o in ring if o.prompt != item.prompt), ring[0])
            found.append(other.completion)
    return found
