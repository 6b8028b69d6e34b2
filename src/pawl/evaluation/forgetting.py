"""What a sequence of models kept: scores by week and task class, and what was lost since (pure, but for numpy).

Forgetting: Chaudhry et al., "Riemannian Walk for Incremental Learning" (arXiv 1801.10112, section 3.2): for each class
the best score of any earlier model less that of the last one. Average accuracy and backward transfer: Lopez-Paz and
Ranzato, "Gradient Episodic Memory" (arXiv 1706.08840, section 2). All models are compared on the items that every one
of them was graded on, so that no difference comes from the items.

Intervals draw whole sources, the same ones for all weeks. The best of several noisy scores is too good
on average: forgetting that is near zero comes out a little above it, the more so the fewer items there are.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import msgspec

from pawl.evaluation.report import Interval, ItemResult
from pawl.evaluation.resampling import RESAMPLES

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Array = npt.NDArray[np.float64]

REST = "other"


class Retained(msgspec.Struct, frozen=True, kw_only=True):
    """One task class through the weeks."""

    name: str
    items: int
    sources: int
    scores: tuple[Interval, ...]  # one a week, on the scale of the items' scores
    forgetting: Interval  # positive: the last model is worse than an earlier one


class Forgetting(msgspec.Struct, frozen=True, kw_only=True):
    """The matrix S[week][class], and what it comes to. Means are over classes, each counting alike."""

    weeks: tuple[str, ...]
    classes: tuple[Retained, ...]
    average: tuple[Interval, ...]  # of the classes' scores, one a week
    forgetting: Interval
    backward: Interval | None  # backward transfer: negative where what was learnt later did harm
    items: int  # common to all weeks
    left_out: int  # graded in some weeks only, or of a class with too few items
    alpha: float


def forgetting(
    weeks: Sequence[tuple[str, Sequence[ItemResult]]],
    class_of: Callable[[str], str],
    *,
    alpha: float,
    learnt: Mapping[str, int] | None = None,
    least: int = 1,
    seed: int = 0,
) -> Forgetting | None:
    """The matrix over `weeks` (name, results), oldest first; None where fewer than two weeks share an item.

    `class_of`: the class of an item's id, which no model's answer may decide. `learnt`: the week (its place) in which a
    class was trained on first; without it there is no backward transfer, and classes that the last week brought have
    none. Classes with fewer than `least` items are put together as REST.
    """
    import numpy as np

    if len(weeks) < 2:
        return None
    graded = [{r.item: r for r in results if r.score is not None} for _, results in weeks]
    common = sorted(set.intersection(*(set(g) for g in graded)))
    if not common:
        return None
    named = {item: class_of(item) or REST for item in common}
    counts = {c: sum(v == c for v in named.values()) for c in set(named.values())}
    named = {item: c if counts[c] >= least else REST for item, c in named.items()}
    classes = sorted(set(named.values()), key=lambda c: (c == REST, c))
    source_of = {item: graded[-1][item].source for item in common}
    sources = sorted(set(source_of.values()))
    # sums[week, class, source] and counts[class, source]: all that any resample needs.
    sums = np.zeros((len(weeks), len(classes), len(sources)))
    amount = np.zeros((len(classes), len(sources)))
    for item in common:
        c, s = classes.index(named[item]), sources.index(source_of[item])
        amount[c, s] += 1
        for w, g in enumerate(graded):
            sums[w, c, s] += float(g[item].score or 0.0)
    since = [(learnt or {}).get(c) for c in classes]
    observed = _figures(sums.sum(axis=2)[None], amount.sum(axis=1)[None], since)
    drawn = np.random.default_rng(seed).multinomial(len(sources), np.full(len(sources), 1 / len(sources)), RESAMPLES)
    drawn = drawn.astype(float)
    resampled = _figures(np.einsum("wcs,rs->rwc", sums, drawn), drawn @ amount.T, since)
    enough = len(sources) > 1
    widen = math.sqrt(len(sources) / (len(sources) - 1)) if enough else 1.0

    def interval(name: str, *at: int) -> Interval:
        mean = float(observed[name][(0, *at)])
        draws = resampled[name]
        for place in at:
            draws = draws[:, place]
        draws = draws[np.isfinite(draws)]
        if not enough or len(draws) == 0:
            return Interval(mean, float("-inf"), float("inf"))
        low, high = np.quantile(draws, [alpha / 2, 1 - alpha / 2])
        # Percentile intervals of few clusters are too narrow, by about sqrt((n-1)/n).
        return Interval(mean, mean - max(0.0, mean - float(low)) * widen, mean + max(0.0, float(high) - mean) * widen)

    rows = tuple(
        Retained(
            name=name,
            items=int(amount[c].sum()),
            sources=int((amount[c] > 0).sum()),
            scores=tuple(interval("scores", w, c) for w in range(len(weeks))),
            forgetting=interval("lost", c),
        )
        for c, name in enumerate(classes)
    )
    return Forgetting(
        weeks=tuple(name for name, _ in weeks),
        classes=rows,
        average=tuple(interval("average", w) for w in range(len(weeks))),
        forgetting=interval("forgetting"),
        backward=interval("backward") if math.isfinite(float(observed["backward"][0])) else None,
        items=len(common),
        left_out=len(set().union(*graded)) - len(common),
        alpha=alpha,
    )


def _figures(sums: Array, amount: Array, since: Sequence[int | None]) -> dict[str, Array]:
    """From sums (draws, weeks, classes) and amount (draws, classes). A class that was not drawn is not a number."""
    import numpy as np

    with np.errstate(invalid="ignore", divide="ignore"):
        scores = sums / amount[:, None, :]
    lost = scores[:, :-1].max(axis=1) - scores[:, -1]
    last = scores.shape[1] - 1
    known = [c for c, w in enumerate(since) if w is not None and w < last]
    gained = [scores[:, -1, c] - scores[:, since[c], c] for c in known]
    return {
        "scores": scores,
        "lost": lost,
        "average": _mean(scores),
        "forgetting": _mean(lost),
        "backward": _mean(np.stack(gained, axis=-1)) if gained else np.full(len(sums), np.nan),
    }


def _mean(values: Array) -> Array:
    """Over the last axis, without what is not a number."""
    import numpy as np

    known = np.isfinite(values)
    with np.errstate(invalid="ignore"):
        mean: Array = np.where(known, values, 0.0).sum(axis=-1) / known.sum(axis=-1)
    return mean
