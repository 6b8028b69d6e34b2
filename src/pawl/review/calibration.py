"""What a quality score means, by what raters said (pure); `calibration_sklearn` fits it."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence

import msgspec

Knots = Sequence[tuple[float, float]]  # (quality score, share right), rising in both


class Calibration(msgspec.Struct, frozen=True, kw_only=True):
    """What a quality score means: knots of a rising line from score to the share that raters call right.

    Brier scores are mean squared errors of the predicted share, weighed to the population; `brier_after` is of items
    that the line was not fitted on. Where it is not below `brier_before` the line helps nobody.
    """

    agent: str
    review: str
    pairs: int
    knots: tuple[tuple[float, float], ...]
    brier_before: float
    brier_after: float
    folds: int

    @property
    def helps(self) -> bool:
        """Whether it predicts better than the score itself."""
        return self.brier_after < self.brier_before


class NotCalibrated(msgspec.Struct, frozen=True):
    """Why there is no calibration."""

    reason: str


def calibrate(knots: Knots, quality: float) -> float:
    """The share right that a quality score stands for: linear between the knots, level beyond them."""
    after = bisect_right([x for x, _ in knots], quality)
    if after == 0:
        return knots[0][1]
    if after == len(knots):
        return knots[-1][1]
    (x0, y0), (x1, y1) = knots[after - 1], knots[after]
    return min(y1, max(y0, y0 + (y1 - y0) * (quality - x0) / (x1 - x0)))
