"""Verified augmentation: variants of examples that the task's own oracle accepts (pure; knows no task)."""

from __future__ import annotations

import hashlib
import math
import random
from collections.abc import Callable, Iterator, Sequence
from itertools import islice

import msgspec

from pawl.curation.dataset import Example
from pawl.qe.item import Messages
from pawl.qe.task import Task, Variant

_LOOK = 6  # candidates looked at together, so that the kinds can have their turns
_TRIES = 12  # candidates looked at for one variant, at most

Counts = dict[str, dict[str, int]]


def augment(
    examples: Sequence[Example],
    factor: float,
    task: Task,
    seed: int,
    min_quality: float,
    accept: Callable[[Example], bool] = lambda _: True,
) -> tuple[list[Example], Counts]:
    """Variants of the training examples, `factor` an example on average, and per kind how many were tried and accepted.

    A variant is accepted where the task grades it at least `min_quality`, it conforms, no example and no other variant
    asks the same, its source is its example's, and `accept` (a length, a near-duplicate) has nothing against it. The
    kind with the fewest accepted so far is tried first. What one example could not give, the next ones make up for,
    up to twice their share. Variants of variants are not made, and nothing is made of what is held out.

    The same arguments give the same variants. The examples themselves are not among them.
    """
    parents = [e for e in examples if e.split == "train" and e.kind != "variant"]
    random.Random(seed).shuffle(parents)
    asked = {_prompt(e.messages) for e in examples}
    made: list[Example] = []
    counts: Counts = {}
    most = 2 * math.ceil(factor)
    owed = 0.5  # so that the sum is rounded, not cut
    for parent in parents:
        owed += factor
        wanted = min(int(owed + 1e-9), most)
        if wanted < 1:
            continue
        stream = task.variants(parent.messages, parent.completion, random.Random(f"{seed}/{parent.id}"))
        found = list(islice(_accepted(parent, stream, task, min_quality, accept, asked, counts, wanted), wanted))
        owed -= len(found)
        made += found
    return made, counts


def _accepted(
    parent: Example,
    stream: Iterator[Variant],
    task: Task,
    min_quality: float,
    accept: Callable[[Example], bool],
    asked: set[bytes],
    counts: Counts,
    wanted: int,
) -> Iterator[Example]:
    """Accepted variants of one example; `asked` and `counts` go on."""
    pool: list[Variant] = []
    for _ in range(_TRIES * wanted):
        pool += islice(stream, _LOOK - len(pool))
        if not pool:
            return
        rarest = min(range(len(pool)), key=lambda i: counts.get(pool[i].kind, {}).get("accepted", 0))
        variant = pool.pop(rarest)
        count = counts.setdefault(variant.kind, {"tried": 0, "accepted": 0})
        count["tried"] += 1
        prompt = _prompt(variant.messages)
        if prompt in asked:
            continue
        example = _verified(parent, variant, task, min_quality)
        if example is not None and accept(example):
            asked.add(prompt)
            count["accepted"] += 1
            yield example


def _verified(parent: Example, variant: Variant, task: Task, min_quality: float) -> Example | None:
    """The variant as an example, graded anew; None where it falls short."""
    # The split goes by source: a variant that names another one could carry a held-out source into training.
    if not task.conforms(variant.completion) or task.source_of(variant.messages) not in (None, parent.source):
        return None
    grade = task.grade(variant.messages, variant.completion)
    if grade is None or grade.score < min_quality:
        return None
    return msgspec.structs.replace(
        parent,
        id=f"{_prompt(variant.messages).hex()[:24]}-variant",
        messages=variant.messages,
        completion=variant.completion,
        quality=grade.score,
        kind="variant",
        scenario=task.scenario_of(variant.messages, variant.completion),
    )


def _prompt(messages: Messages) -> bytes:
    return hashlib.sha256(msgspec.json.encode(messages)).digest()
