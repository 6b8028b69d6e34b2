"""The order in which training sees its examples (pure): what makes a run repeatable and resumable."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence

# So many batches are sorted by length together: little padding, and still a fresh mixture in each epoch.
_WINDOW = 16


def schedule(lengths: Sequence[int], batch_size: int, epochs: float, seed: int) -> list[list[int]]:
    """All batches of a run, as indices into `lengths`, in order.

    Each epoch is a new shuffle in which every example occurs once; a broken epoch takes the first batches of its
    shuffle. Batches hold examples of like length, and come in random order. The same arguments give the same result.
    """
    if not lengths:
        return []
    per_epoch = math.ceil(len(lengths) / batch_size)
    wanted = max(1, round(per_epoch * epochs))
    rng = random.Random(seed)
    found: list[list[int]] = []
    while len(found) < wanted:
        order = list(range(len(lengths)))
        rng.shuffle(order)
        batches: list[list[int]] = []
        for start in range(0, len(order), batch_size * _WINDOW):
            window = sorted(order[start : start + batch_size * _WINDOW], key=lambda i: lengths[i])
            batches += [window[at : at + batch_size] for at in range(0, len(window), batch_size)]
        rng.shuffle(batches)
        found += batches
    return found[:wanted]
