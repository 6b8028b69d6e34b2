"""What local only, cloud only and mixtures of both would have been worth on items that both answered (pure).

A mixture asks the local model first and the cloud where the gateway itself would: it may look at the answer's form and
at the request, never at the oracle's score. What the local model said before counts in time and money.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import msgspec

from pawl.evaluation.clustered import clustered_mean, ratio_of_means
from pawl.evaluation.metrics import Prices
from pawl.evaluation.report import Interval, ItemResult


class Mode(msgspec.Struct, frozen=True, kw_only=True):
    """One way of serving."""

    name: str
    items: int
    quality: Interval
    of_cloud: Interval | None  # quality over that of the cloud alone
    cloud_share: float  # items that the cloud was asked for
    usd_per_thousand: float
    latency_p50_s: float
    latency_p95_s: float


# name -> whether the cloud is asked, given the local answer; the two plain modes are there anyway
Rule = Callable[[ItemResult], bool]


def modes(
    local: Sequence[ItemResult],
    cloud: Sequence[ItemResult],
    prices: tuple[Prices, Prices],
    rules: Mapping[str, tuple[Rule, bool]],
    alpha: float,
) -> tuple[Mode, ...]:
    """Each way of serving on the items that both sides were graded on; `prices` are local's and the cloud's.

    `rules`: by name, when the cloud is asked, and whether the local model was asked before (a check of its answer) or
    not (a look at the request).
    """
    other = {i.item: i for i in cloud if i.score is not None}
    pairs = sorted(
        ((i, other[i.item]) for i in local if i.score is not None and i.item in other), key=lambda p: p[0].item
    )
    if not pairs:
        return ()
    everything: dict[str, tuple[Rule, bool]] = {
        "local only": (lambda _: False, True),
        "cloud only": (lambda _: True, False),
        **rules,
    }
    baseline = [(b.source, float(b.score or 0.0)) for _, b in pairs]
    found = []
    for name, (asks_cloud, after) in everything.items():
        scores, usd, seconds, asked = [], 0.0, [], 0
        for mine, theirs in pairs:
            away = asks_cloud(mine)
            used = theirs if away else mine
            wasted = away and after
            scores.append((mine.source, float(used.score or 0.0)))
            usd += prices[1].usd(theirs.prompt_tokens, theirs.completion_tokens) if away else 0.0
            usd += prices[0].usd(mine.prompt_tokens, mine.completion_tokens) if wasted or not away else 0.0
            seconds.append(used.latency_s + (mine.latency_s if wasted else 0.0))
            asked += away
        seconds.sort()
        found.append(
            Mode(
                name=name,
                items=len(pairs),
                quality=clustered_mean(scores, alpha, (0.0, 1.0)),
                of_cloud=ratio_of_means(scores, baseline, alpha),
                cloud_share=asked / len(pairs),
                usd_per_thousand=1000 * usd / len(pairs),
                latency_p50_s=seconds[(len(seconds) - 1) // 2],
                latency_p95_s=seconds[max(0, -(-95 * len(seconds) // 100) - 1)],
            )
        )
    return tuple(found)
