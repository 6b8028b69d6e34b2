"""Sequential tests that may be looked at after every observation (pure, no imports to slow the gateway's start).

All of them bet against a hypothesis: a gambler who starts with 1 and plays a game that the hypothesis makes fair or
worse ends at 1/alpha or more, at any time, with probability alpha at most (Ville's inequality). See Shafer, "Testing
by betting", JRSS A 184 (2021), and Waudby-Smith and Ramdas, "Estimating means of bounded random variables by
betting", JRSS B 86 (2024; arXiv 2010.09686, cited below as WSR).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import exp, inf, log, log1p, sqrt
from typing import NamedTuple

# Stakes from careful to bold. The mixture loses at most log(len(BETS)) in log wealth to the best of them.
BETS = (0.05, 0.1, 0.2, 0.3, 0.45, 0.6, 0.8, 0.95)
# Alternatives to "the rate is at most p": p + share * (1 - p).
RATE_SHARES = (0.05, 0.1, 0.2, 0.4, 0.7)
TRUNCATION = 0.5  # WSR's c: how much of the wealth a single bet of the confidence sequence may lose
BISECTIONS = 24
HEADROOM = 10.0  # of a stretch of failures beyond what tells it
_MOST = 1e250  # a wealth beyond this has decided long ago; two of them may be added


def harm_path(differences: Sequence[float]) -> Iterator[float]:
    """The e-value against "E[d | past] >= 0" after each observation d in [-1, 1] (challenger - champion).

    The mean over `BETS` of prod(1 - bet * d_i), a nonnegative supermartingale under the hypothesis (WSR section 4.1,
    with a fixed mixture in place of predictable bets, so that the value at the end does not depend on the order).
    ValueError for a d outside [-1, 1].
    """
    logs = [0.0] * len(BETS)
    for d in differences:
        if not -1.0 <= d <= 1.0:
            raise ValueError(f"a difference of two scores in [0, 1] lies in [-1, 1], this one is {d}")
        logs = [total + log1p(-bet * d) for total, bet in zip(logs, BETS, strict=True)]
        yield _mean_exp(logs)


def harm(differences: Sequence[float]) -> tuple[float, float]:
    """The e-value of `harm_path` now, and the largest so far (1 before the first): the largest is what counts."""
    now = largest = 1.0
    for now in harm_path(differences):
        largest = max(largest, now)
    return now, largest


def excess_path(failures: Sequence[bool], limit: float, most: float = _MOST) -> Iterator[float]:
    """The e-value against "every call fails with probability at most `limit`, given the past", after each call.

    The likelihood ratio of a fixed mixture of higher rates to `limit` itself, which is the least favourable rate of
    the hypothesis, begun anew at every call: at the j-th with 1 / (j (j + 1)) of the stake, and what waits for a later
    start is kept. These shares sum to 1, so it is an e-process (Shin, Ramdas and Rinaldo, "E-detectors", arXiv
    2203.03532, section 2), and what went well before an outage hides it for a few calls only: the price of n good
    calls is 2 log n of log wealth. A limit of 1 cannot be exceeded: it is 1 throughout.
    What each alternative gained beyond `most` is given away.
    """
    if limit >= 1.0:
        yield from (1.0 for _ in failures)
        return
    ratios = _ratios(limit)
    wealth = [0.0] * len(ratios)
    for j, failed in enumerate(failures, start=1):
        share = 1.0 / (j * (j + 1.0))
        wealth = [min(most, (w + share) * r[failed]) for w, r in zip(wealth, ratios, strict=True)]
        yield sum(wealth) / len(wealth) + 1.0 / (j + 1.0)


class Excess(NamedTuple):
    """A stretch of calls that failed more often than they may: the indices of its first and its last call."""

    first: int
    last: int
    over: bool  # the calls after it have outweighed it


def excesses(failures: Sequence[bool], limit: float, target: float) -> list[Excess]:
    """The stretches in which the e-value of `excess_path` reached `target`, which is over 1.

    Each from the first failure after which a bet would have gained most by the stretch's last, until that. What is
    gained beyond `HEADROOM` times the target is given away: however long an outage was, the same number of good
    calls outweighs it. Failures before the e-value is down to 1 again belong to the same stretch.
    """
    found: list[Excess] = []
    last, since, value = -1, 0, 1.0
    for n, value in enumerate(excess_path(failures, limit, HEADROOM * target)):
        if value >= target and failures[n]:
            last = n
        elif value < 1.0 and last >= 0:
            found.append(Excess(_began(failures, since, last, limit), last, True))
            last, since = -1, n
    if last >= 0:
        found.append(Excess(_began(failures, since, last, limit), last, value < target))
    return found


def _began(failures: Sequence[bool], since: int, last: int, limit: float) -> int:
    gains = [(log(good), log(bad)) for good, bad in _ratios(limit)]
    logs, best = [0.0] * len(gains), (-inf, last)
    for j in range(last, since - 1, -1):
        logs = [total + gain[failures[j]] for total, gain in zip(logs, gains, strict=True)]
        top = max(logs)
        value = top + log(sum(exp(x - top) for x in logs)) - log((j + 1.0) * (j + 2.0))
        best = max(best, (value, j))
    return failures.index(True, best[1])


def _ratios(limit: float) -> list[tuple[float, float]]:
    """Each alternative's likelihood ratio to `limit`: at a success, at a failure."""
    rates = [limit + share * (1.0 - limit) for share in RATE_SHARES]
    return [((1.0 - rate) / (1.0 - limit), rate / limit) for rate in rates]


def confidence_sequence(differences: Sequence[float], alpha: float) -> tuple[float, float]:
    """Bounds of the mean of d in [-1, 1] that hold at every look at once, with probability 1 - alpha.

    Without observations they are -1 and 1. Where the mean drifts the sets may become disjoint (lower > upper).
    The hedged capital process of WSR Theorem 3 (theta = 1/2, predictable plug-in bets of their equation 26,
    truncated at `TRUNCATION`) on (d + 1) / 2, and the running intersection of its sets. Theirs is computed on a grid
    of means; here each bound is bisected, because the capital is monotone in the mean on either side (with its bets
    chosen without regard to the mean and truncated at c/m, each factor 1 + min(bet, c/m) (x - m) falls in m).
    """
    xs = [(d + 1.0) / 2.0 for d in differences]
    bets, target = _bets(xs, alpha), log(2.0 / alpha)
    lower = _bisect(xs, bets, target)
    upper = 1.0 - _bisect([1.0 - x for x in xs], bets, target)
    return 2.0 * lower - 1.0, 2.0 * upper - 1.0


def lower_bound(scores: Sequence[float], alpha: float) -> float:
    """A lower bound of the mean of scores in [0, 1] that holds at every look, with probability 1 - alpha.

    One side of the same construction, with the whole of alpha on that side; 0 without scores.
    """
    return _bisect(scores, _bets(scores, 2.0 * alpha), log(1.0 / alpha))


def _bets(xs: Sequence[float], alpha: float) -> list[float]:
    """WSR equation 26: the bet at time t uses what came before it only."""
    bets: list[float] = []
    total, squares, variance = 0.5, 0.25, 0.25
    for t, x in enumerate(xs, start=1):
        bets.append(sqrt(2.0 * log(2.0 / alpha) / (variance * t * log(t + 1.0))))
        total += x
        squares += (x - total / (t + 1.0)) ** 2
        variance = squares / (t + 1.0)
    return bets


def _bisect(xs: Sequence[float], bets: Sequence[float], target: float) -> float:
    """The largest mean that the upward bet has ruled out at some time, to within 2**-BISECTIONS from below."""
    low, high = 0.0, 1.0
    for _ in range(BISECTIONS):
        middle = (low + high) / 2.0
        if _ruled_out(xs, bets, middle, target):
            low = middle
        else:
            high = middle
    return low


def _ruled_out(xs: Sequence[float], bets: Sequence[float], mean: float, target: float) -> bool:
    most, wealth = TRUNCATION / mean, 0.0
    for x, bet in zip(xs, bets, strict=True):
        wealth += log1p(min(bet, most) * (x - mean))
        if wealth >= target:
            return True
    return False


def _mean_exp(logs: Sequence[float]) -> float:
    top = max(logs)
    # Capped, because a wealth beyond this has decided long ago and JSON knows no infinity.
    return exp(min(top, 600.0)) * sum(exp(x - top) for x in logs) / len(logs)
