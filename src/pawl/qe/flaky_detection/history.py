"""What a test did when it was run again, and what that alone says of it."""

from __future__ import annotations

import hashlib
import math
import random
from typing import Literal, NamedTuple

Verdict = Literal["flaky", "stable"]
SAMPLES = (20, 50)  # reruns that a prompt shows

# Share of stable tests among those that somebody asks about, before any rerun is seen: assumed, not measured.
_PRIOR_STABLE = 0.75


class Reruns(NamedTuple):
    """Runs of one test on unchanged code, and how many of them failed."""

    runs: int
    failed: int


def sample(rate: float, key: str) -> Reruns:
    """Reruns of a test whose share of failures is `rate`: a binomial draw, the same for the same key."""
    rng = random.Random(hashlib.sha256(key.encode()).digest())
    runs = rng.choice(SAMPLES)
    return Reruns(runs, sum(rng.random() < rate for _ in range(runs)))


def history_verdict(seen: Reruns) -> tuple[Verdict, float]:
    """The rule that everybody can apply: flaky exactly where the same code both passed and failed; 0..1 how sure.

    A test that never changed may yet be flaky and too rare for the sample; the longer the sample, the less so. The
    confidence is that of Bayes' rule with a rate of failure uniform in its logarithm from 1 in 10,000 to 1.
    """
    if 0 < seen.failed < seen.runs:
        return "flaky", 0.99
    quiet = _chance_of_no_change(seen.runs)
    return "stable", round(_PRIOR_STABLE / (_PRIOR_STABLE + (1 - _PRIOR_STABLE) * quiet), 2)


def _chance_of_no_change(runs: int, steps: int = 200) -> float:
    """Of flaky tests, the share that passes, or fails, so many times in a row."""
    rates = [math.exp(math.log(1e-4) * (n + 0.5) / steps) for n in range(steps)]
    return sum((1 - r) ** runs + r**runs for r in rates) / steps
