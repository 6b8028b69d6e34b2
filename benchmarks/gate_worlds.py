"""Made-up evaluations whose truth is known: two models on the same items of the same sources, many runs at once.

Items of a source resemble each other, models resemble each other, and sources are of unequal size. In the worlds
called `shifts` both models are the same kind of thing and one is somewhat weaker everywhere, with sources that suit one
of them more than the other. In `breaks` the challenger is the champion with some answers spoilt, mostly in the same few
sources, and others mended: differences are rare, skewed and in clumps, as after a fine-tuning that went wrong.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy.special import ndtr, ndtri

Array = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

ALIKE = 0.6  # share of the latent variance that both models have in common
SHARED = 0.15  # of that, what items of one source have in common
OWN = 0.15  # of the rest, what one model has in common over a source's items
CLUMPED = 0.15  # intra-source correlation of being spoilt
MENDED = 0.03  # of the items that could be better
STEPS = {"binary": (0.0,), "thirds": (-0.45, 0.0, 0.45)}  # thresholds of the scores, in latent units


@dataclass(frozen=True)
class World:
    """One kind of evaluation."""

    scores: Literal["binary", "thirds"]
    base: float  # the champion's mean score
    sources: int
    how: Literal["shifts", "breaks"]

    @property
    def name(self) -> str:
        return f"{self.scores}, base {self.base:g}, {self.sources} sources, {self.how}"


@dataclass(frozen=True)
class Runs:
    """Scores of many evaluations: `before`, `after` and `source` are (runs, items)."""

    before: Array
    after: Array
    source: Ints
    sources: int

    def clusters(self) -> tuple[Array, Array]:
        """Sums of the paired differences and numbers of items, by source: (runs, sources) each."""
        runs = len(self.source)
        place = (self.source + self.sources * np.arange(runs)[:, None]).ravel()
        shape = (runs, self.sources)
        sums = np.bincount(place, weights=(self.after - self.before).ravel(), minlength=runs * self.sources)
        return sums.reshape(shape), np.bincount(place, minlength=runs * self.sources).reshape(shape).astype(float)


def simulate(world: World, items: int, loss: float, runs: int, rng: np.random.Generator) -> Runs:
    """Evaluations of so many items in which the challenger's true mean score is lower by `loss`."""
    shares = rng.gamma(2.0, size=(runs, world.sources)) + 0.1
    shares /= shares.sum(axis=1, keepdims=True)
    sizes = 1 + rng.multinomial(items - world.sources, shares)
    source = np.repeat(np.tile(np.arange(world.sources), runs), sizes.ravel()).reshape(runs, items)

    def of_source(values: Array) -> Array:
        return np.take_along_axis(values, source, axis=1)

    def normal(width: int, variance: float) -> Array:
        return np.sqrt(variance) * rng.normal(size=(runs, width))

    def answers(mean: float) -> Array:
        alone = of_source(normal(world.sources, (1 - ALIKE) * OWN)) + normal(items, (1 - ALIKE) * (1 - OWN))
        steps = STEPS[world.scores]
        level = common + alone + _level(mean, steps)
        return sum(((level + step > 0).astype(float) for step in steps), np.zeros_like(level)) / len(steps)

    common = of_source(normal(world.sources, ALIKE * SHARED)) + normal(items, ALIKE * (1 - SHARED))
    before = answers(world.base)
    if world.how == "shifts":
        return Runs(before, answers(world.base - loss), source, world.sources)
    room = MENDED * (1 - world.base)
    spoilt = (loss + room) / (world.base + room)  # E = -spoilt base + (1 - spoilt) MENDED (1 - base) = -loss

    def struck(rate: float) -> npt.NDArray[np.bool_]:
        strength = (1 - CLUMPED) / CLUMPED
        rates = rng.beta(rate * strength, (1 - rate) * strength, size=(runs, world.sources))
        return rng.random((runs, items)) < of_source(rates)

    broken, mended = struck(spoilt), struck(MENDED)
    after = np.where(broken, 0.0, np.where(mended, 1.0, before))
    return Runs(before, after, source, world.sources)


def _level(mean: float, steps: tuple[float, ...]) -> float:
    """The latent level at which the mean score is so high; the latent variance is 1."""
    low, high = -6.0, 6.0
    if len(steps) == 1:
        return float(ndtri(mean))
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if np.mean(ndtr(middle + np.array(steps))) < mean else (low, middle)
    return (low + high) / 2
