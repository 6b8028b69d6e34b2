"""Exact tests of proportions: Fisher's of two, the binomial of one (pure Python: the gateway must not import scipy)."""

from __future__ import annotations

from math import exp, lgamma, log, log1p


def more_often(hits: int, n: int, others: int, m: int) -> float:
    """One-sided p-value: `hits` of `n` against `others` of `m`, alternative "the first happens more often"."""
    top = min(n, hits + others)
    return min(1.0, sum(_chance(x, n, hits + others, m) for x in range(hits, top + 1)))


def different(hits: int, n: int, others: int, m: int) -> float:
    """Two-sided p-value: the total chance of the tables that are no likelier than this one."""
    both = hits + others
    mine = _chance(hits, n, both, m) * (1.0 + 1e-9)  # equal chances differ in the last digits
    chances = (_chance(x, n, both, m) for x in range(max(0, both - m), min(n, both) + 1))
    return min(1.0, sum(c for c in chances if c <= mine))


def _chance(x: int, n: int, both: int, m: int) -> float:
    """Hypergeometric probability of x among the first n, when `both` of n + m are hits."""
    return exp(_log_choose(n, x) + _log_choose(m, both - x) - _log_choose(n + m, both))


def _log_choose(n: int, k: int) -> float:
    return lgamma(n + 1) - lgamma(k + 1) - lgamma(n - k + 1)


def rarely(hits: int, n: int, rate: float) -> float:
    """The chance of at least `hits` of `n` where each happens with probability `rate` (binomial)."""
    if hits <= 0 or rate >= 1.0:
        return 1.0
    if rate <= 0.0:
        return 0.0
    chances = (exp(_log_choose(n, k) + k * log(rate) + (n - k) * log1p(-rate)) for k in range(hits, n + 1))
    return min(1.0, sum(chances))
