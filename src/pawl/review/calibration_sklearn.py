"""A quality score against what raters say: isotonic regression, and whether it helps on items it has not seen."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from sklearn.isotonic import IsotonicRegression

from pawl.review.calibration import Calibration, NotCalibrated, calibrate
from pawl.review.verdicts import Pair

LEAST = 30  # pairs
MOST_FOLDS = 60  # up to so many pairs each is left out alone
FOLDS = 20

Floats = npt.NDArray[np.float64]


def fit(agent: str, review: str, pairs: Sequence[Pair], seed: int = 0) -> Calibration | NotCalibrated:
    """The rising line that fits best (Zadrozny and Elkan 2002, Proc. KDD), with its Brier scores.

    `brier_after` is cross-validated: each pair is predicted by a line that it had no part in.
    """
    if len(pairs) < LEAST:
        return NotCalibrated(
            f"{len(pairs)} rated answers have a quality score, a calibration needs {LEAST}: rate more, or draw a "
            "larger sample"
        )
    x, y, w = (np.array([float(p[n]) for p in pairs]) for n in range(3))
    folds = len(pairs) if len(pairs) <= MOST_FOLDS else FOLDS
    part = np.random.default_rng(seed).permutation(len(pairs)) % folds
    after = np.empty(len(pairs))
    for n in range(folds):
        out = part == n
        knots = _knots(x[~out], y[~out], w[~out])
        after[out] = [calibrate(knots, q) for q in x[out]]
    return Calibration(
        agent=agent,
        review=review,
        pairs=len(pairs),
        knots=_knots(x, y, w),
        brier_before=float(np.average((x - y) ** 2, weights=w)),
        brier_after=float(np.average((after - y) ** 2, weights=w)),
        folds=folds,
    )


def _knots(x: Floats, y: Floats, w: Floats) -> tuple[tuple[float, float], ...]:
    line = IsotonicRegression(y_min=0.0, y_max=1.0, out_of_bounds="clip").fit(x, y, sample_weight=w)
    return tuple((float(a), float(b)) for a, b in zip(line.X_thresholds_, line.y_thresholds_, strict=True))
