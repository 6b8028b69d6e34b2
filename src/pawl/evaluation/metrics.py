"""What one model's answers come to, beyond the score: classes, calibration, parts of the grade, speed, cost."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from pawl.evaluation.clustered import clustered_mean, ratio_of_means
from pawl.evaluation.report import ClassMetrics, Interval, ItemResult, Metrics

BINS = 10


class Prices(NamedTuple):
    """US dollars for a million tokens."""

    prompt: float
    completion: float

    def usd(self, prompt_tokens: float, completion_tokens: float) -> float:
        """What so many tokens cost."""
        return (prompt_tokens * self.prompt + completion_tokens * self.completion) / 1e6


CHARS_A_TOKEN = 3  # of a text that nobody has counted, cautiously
FREE = Prices(0.0, 0.0)


def measure(items: Sequence[ItemResult], alpha: float, prices: Prices | None = None) -> Metrics:
    """Figures of one model over the items that were graded; intervals are over sources. Times and tokens are of the
    answers that were given, graded or not."""
    graded = sorted((i for i in items if i.score is not None), key=lambda i: i.item)
    told = [i for i in graded if i.label]
    answered = [i for i in items if i.latency_s > 0]
    times = sorted(i.latency_s for i in answered)
    asked, said = (_mean([getattr(i, name) for i in answered]) for name in ("prompt_tokens", "completion_tokens"))
    right = [(i.source, float(i.said == i.label)) for i in told]
    sure = [(i.confidence, float(i.said == i.label)) for i in told if i.confidence is not None and i.said]
    classes = class_metrics([i.label for i in told], [i.said for i in told])
    names = sorted({name for i in graded for name in i.metrics})
    return Metrics(
        items=len(graded),
        conforms=sum(i.conforms for i in items) / max(1, len(items)),
        means={
            n: clustered_mean([(i.source, i.metrics[n]) for i in graded if n in i.metrics], alpha, (0.0, 1.0))
            for n in names
        },
        accuracy=clustered_mean(right, alpha, (0.0, 1.0)) if right else None,
        macro_f1=_mean([c.f1 for c in classes]) if classes else None,
        classes=classes,
        brier=brier(sure) if sure else None,
        calibration_error=calibration_error(sure) if sure else None,
        confident=len(sure),
        prompt_tokens=asked,
        completion_tokens=said,
        latency_p50_s=_quantile(times, 0.5),
        latency_p95_s=_quantile(times, 0.95),
        usd_per_thousand=1000 * prices.usd(asked, said) if prices and answered else None,
    )


def class_metrics(labels: Sequence[str], said: Sequence[str]) -> tuple[ClassMetrics, ...]:
    """Of each class that is right somewhere or was said; no answer ("") is a miss of the right class and of no other.

    Where a class was never said its precision is 0, where it is never right its recall is 0, as in scikit-learn with
    zero_division=0.
    """
    right, given = Counter(labels), Counter(s for s in said if s)
    hits = Counter(a for a, b in zip(labels, said, strict=True) if a == b)
    rows = []
    for name in sorted(right.keys() | given.keys()):
        precision = hits[name] / given[name] if given[name] else 0.0
        recall = hits[name] / right[name] if right[name] else 0.0
        f1 = 2 * precision * recall / (precision + recall) if precision + recall else 0.0
        rows.append(ClassMetrics(label=name, items=right[name], precision=precision, recall=recall, f1=f1))
    return tuple(rows)


def brier(stated: Sequence[tuple[float, float]]) -> float:
    """Mean squared distance of the stated confidence from whether the class was right (Brier, Monthly Weather Review
    78, 1950)."""
    return _mean([(confidence - right) ** 2 for confidence, right in stated])


def calibration_error(stated: Sequence[tuple[float, float]]) -> float:
    """Distance of mean confidence from accuracy in BINS bins (lower, upper] of equal width, weighted by their items
    (Guo et al., "On calibration of modern neural networks", arXiv 1706.04599, eq. 3)."""
    bins: dict[int, list[tuple[float, float]]] = {}
    for confidence, right in stated:
        bins.setdefault(min(BINS - 1, max(0, math.ceil(confidence * BINS) - 1)), []).append((confidence, right))
    off = [abs(math.fsum(c for c, _ in b) - math.fsum(r for _, r in b)) for b in bins.values()]
    return math.fsum(off) / len(stated)


def share_of(ours: Sequence[ItemResult], baseline: Sequence[ItemResult], alpha: float) -> Interval | None:
    """Our mean score over that of a baseline (0.95: "95 % of it") on the items that both were graded on, with an
    interval over sources; None where there is no such item, or the baseline scores too close to 0."""
    other = {i.item: i.score for i in baseline if i.score is not None}
    both = sorted((i for i in ours if i.score is not None and i.item in other), key=lambda i: i.item)
    return ratio_of_means(
        [(i.source, float(i.score or 0.0)) for i in both], [(i.source, other[i.item]) for i in both], alpha
    )


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values) if values else 0.0


def _quantile(ranked: Sequence[float], q: float) -> float | None:
    """The smallest value that at least the share q does not exceed."""
    return ranked[max(0, math.ceil(q * len(ranked)) - 1)] if ranked else None
