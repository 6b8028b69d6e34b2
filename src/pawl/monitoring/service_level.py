"""Availability and latency as clients had them, from what Prometheus counted by the hour (pure).

Records know nothing of a request that was refused before any model was called, of the wait in a queue, and of the time
without a gateway. Prometheus counts the first two and sees the third. What it has nothing of counts as the worst it may
have been for a lower bound, and as the best for an upper one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import msgspec

from pawl.monitoring.independence import Figure, Service, share
from pawl.monitoring.month_facts import Column


class Watched(msgspec.Struct, frozen=True, kw_only=True):
    """One agent's requests, or the fleet's, and the minutes of the gateways. Columns hold one value an hour."""

    answered: Column  # requests that were
    due: Column  # requests that should have been answered
    timed: Column  # answered requests whose time was taken
    edges: Column  # seconds, rising
    within: tuple[Column, ...]  # of `timed`, those that took no longer than each edge
    minutes: int  # in the time that is reported
    told: int  # of those, the ones in which a gateway told its metrics
    silent: int  # those in which Prometheus ran and no gateway did


def service_of(w: Watched, sessions: int) -> Service:
    """The figures with their bounds over hours. `sessions`: that the requests came in, for the design effect."""
    shares = [_busy(column, w.timed, sessions) for column in w.within]
    return Service(
        availability=_availability(w, sessions),
        p50=_percentile(w, shares, 0.50, sessions),
        p95=_percentile(w, shares, 0.95, sessions),
        requests=round(sum(w.due)),
        minutes=w.minutes,
        silent=w.silent,
        unseen=w.minutes - w.told - w.silent,
    )


def _availability(w: Watched, sessions: int) -> Figure | None:
    """The share answered, times the share of the time that a gateway was there: requests that met none are counted by
    nobody, and are taken to have come as often as the others."""
    found = _busy(w.answered, w.due, sessions)
    if found is None or not w.told:
        return None
    return msgspec.structs.replace(
        found,
        value=found.value * (w.told / (w.told + w.silent)),
        lower=found.lower * (w.told / w.minutes),
        upper=found.upper * ((w.minutes - w.silent) / w.minutes),
    )


def _busy(hits: Sequence[float], of: Sequence[float], sessions: int) -> Figure | None:
    """`share` over the hours in which there was anything."""
    rows = [(h, n) for h, n in zip(hits, of, strict=True) if n > 0]
    return share([h for h, _ in rows], [n for _, n in rows], sessions) if rows else None


def _percentile(w: Watched, shares: Sequence[Figure | None], level: float, sessions: int) -> Figure | None:
    """The percentile of a histogram: interpolated as Prometheus does it, its bounds at edges of buckets.

    It lies under an edge where at least `level` of the requests surely do, and over one where surely fewer do: the
    bounds of the cumulative share turned around (Woodruff, "Confidence intervals for medians and other position
    measures", JASA 47, 1952).
    """
    total = sum(w.timed)
    if total <= 0 or not w.minutes or not w.edges:
        return None
    seen = (w.told + w.silent) / w.minutes
    lower, upper = 0.0, math.inf
    for edge, found in zip(w.edges, shares, strict=True):
        if found is None:
            return None
        if found.upper * seen + (1 - seen) < level:
            lower = edge
        if found.lower * seen >= level and upper == math.inf:
            upper = math.nextafter(edge, 0.0)  # a bucket holds its edge, which no request ever hits
    value = _interpolated(w, level * total)
    return Figure(
        value=value,
        lower=min(lower, value),
        upper=max(upper, value),
        unit="seconds",
        sessions=sessions,
        counted=round(total),
    )


def _interpolated(w: Watched, rank: float) -> float:
    below, counted = 0.0, 0.0
    for edge, column in zip(w.edges, w.within, strict=True):
        here = sum(column)
        if here >= rank:
            return below + (edge - below) * (rank - counted) / (here - counted) if here > counted else edge
        below, counted = edge, here
    return w.edges[-1]  # beyond the last edge nobody knows how far
