"""What progressive-delivery controllers do with the same traffic: thresholds on a success rate, counted failures.

Argo Rollouts (analysis documentation, v1.8): a measurement each interval; it has failed where the success condition is
false; more failures than `failureLimit` abort the rollout. Flagger (documentation of canary analysis, v1.41): a check
each interval; `threshold` failed checks roll back, and the weight rises only after a check that passed. Both compare
with a fixed number. So that it can mean anything here, both are told the champion's true mean, which in life nobody
knows, and demand 95 % of it.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

Both = tuple[float, float]  # (the champion's score, the challenger's)
WEIGHTS = (20, 50, 80, 100)
DEMANDED = 0.95
ARGO_FAILURE_LIMIT = 3  # the documentation's example
FLAGGER_THRESHOLD = 5  # the documentation's example


def argo(scores: Iterator[Both], mean: float, check: int, checks: int, seed: int) -> int | None:
    """The challenger's answers until the rollout is aborted; None where it is not. `check`: answers a measurement,
    `checks`: of them at each weight."""
    failed, seen = 0, 0
    following = _challengers(scores, seed)
    for weight in WEIGHTS:
        for _ in range(checks):
            rate = _rate(following, weight, check)
            seen += check
            failed += rate < DEMANDED * mean
            if failed > ARGO_FAILURE_LIMIT:
                return seen
    return None


def flagger(scores: Iterator[Both], mean: float, check: int, checks: int, seed: int) -> int | None:
    """As `argo`, until it is rolled back. A check that fails is repeated at the same weight."""
    failed, passed, seen = 0, 0, 0
    following = _challengers(scores, seed)
    while passed < checks * len(WEIGHTS):
        rate = _rate(following, WEIGHTS[passed // checks], check)
        seen += check
        if rate >= DEMANDED * mean:
            passed += 1
            continue
        failed += 1
        if failed >= FLAGGER_THRESHOLD:
            return seen
    return None


def _challengers(scores: Iterator[Both], seed: int) -> Callable[[int], float]:
    """Gives the next score that the challenger gets at a weight: each weight takes its share of the arrivals."""
    rng = random.Random(seed)

    def following(weight: int) -> float:
        while True:
            _, new = next(scores)
            if rng.random() * 100 < weight:
                return new

    return following


def _rate(following: Callable[[int], float], weight: int, check: int) -> float:
    return sum(following(weight) for _ in range(check)) / check
