"""How independent of the cloud a month was: shares, savings, quality and their intervals (pure).

These figures compare with a cloud and never with the champion. Every interval is two-sided, 95 %, over groups of
sessions (of sources, for quality): the go decision is about the sessions to come, of which the month's are a sample.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import msgspec

from pawl.evaluation import resampling
from pawl.evaluation.clustered import UNSEEN
from pawl.monitoring.break_even import BreakEven, Outlay, break_even
from pawl.monitoring.month_facts import Domain, Latency, Memory, Month, Pairs, Scope, Workflow

ALPHA = 0.05
LEVELS = (ALPHA / 2, 1 - ALPHA / 2)
LEAST_SESSIONS = 10  # fewer say nothing of those to come
LEAST_PAIRS = 30
Unit = Literal["share", "ratio", "usd", "seconds", "calls"]


class Figure(msgspec.Struct, frozen=True, kw_only=True):
    """A value with its two-sided bounds, and what it was counted on."""

    value: float
    lower: float
    upper: float
    unit: Unit = "share"
    sessions: int = 0  # sessions, or sources of items
    counted: int = 0  # requests, calls or pairs


class CloudUsed(msgspec.Struct, frozen=True, kw_only=True):
    """A cloud that agents are measured against. US dollars a million tokens."""

    upstream: str
    model: str
    stand_in: bool
    prompt: float
    completion: float
    agents: tuple[str, ...]


class Line(msgspec.Struct, frozen=True, kw_only=True):
    """One agent's figures, or the fleet's (name "")."""

    name: str
    answered: int
    failed: int  # requests that should have been answered and were not
    sessions: int
    prompt_tokens: int
    completion_tokens: int
    cost_usd: float  # of answers and drafts, machines included where their price is known
    shadow_usd: float
    cloud_usd: float  # what clouds took for all of it
    all_cloud_usd: float
    cost_per_call: float | None
    all_cloud_per_call: float | None
    local: Figure | None = None
    fallback: Figure | None = None
    availability: Figure | None = None
    saved: Figure | None = None  # US dollars
    saved_share: Figure | None = None
    quality: dict[str, Figure] = {}  # local over cloud: all, simple, tuned
    p50: Figure | None = None
    p95: Figure | None = None


class Service(msgspec.Struct, frozen=True, kw_only=True):
    """What clients had, by Prometheus: refusals, waits in queues and the time without a gateway are in it."""

    availability: Figure | None
    p50: Figure | None
    p95: Figure | None
    requests: int  # that should have been answered
    minutes: int  # that it is about; of those
    silent: int  # the ones in which no gateway told its metrics
    unseen: int  # and those that Prometheus has nothing of


class Independence(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that the report says, but the phases."""

    month: str  # 2026-11
    since: float  # epoch seconds
    until: float
    timezone: str = "UTC"  # that the month and its days are in
    whole: bool  # False: the month is not over
    agent: str  # "" for the fleet
    clouds: tuple[CloudUsed, ...]
    stand_in: bool  # whether any of the clouds is one
    line: Line
    service: Service | None = None  # of the same; None: Prometheus was not asked, or has nothing
    agents: tuple[Line, ...]
    workflows: tuple[Workflow, ...]
    facts: Month
    machines_usd: float | None  # and monthly costs, of the time that the figures cover; None: nobody said any
    by_token: bool = False  # what local models answered is paid by the token, beside those
    hours: float  # that the figures cover
    even: BreakEven | None
    memory: Memory | None = None
    domains: tuple[Domain, ...] = ()
    notes: tuple[str, ...] = ()  # what a reader must know of these figures
    unpriced: str = ""  # why there is no share saved

    @property
    def availability(self) -> Figure | None:
        """By Prometheus, or else by the records, which know no refusals."""
        return self.line.availability if self.service is None else self.service.availability

    @property
    def p50(self) -> Figure | None:
        """Of requests with their waits by Prometheus, or else of calls by the records."""
        return self.line.p50 if self.service is None else self.service.p50

    @property
    def p95(self) -> Figure | None:
        """As `p50`."""
        return self.line.p95 if self.service is None else self.service.p95


def share(hits: Sequence[float], of: Sequence[float], sessions: int) -> Figure | None:
    """A share of what happened, 0..1, with its interval; None where nothing did.

    The wider of the intervals over sessions (`resampling.bounds`) and the exact one of Clopper and Pearson ("The use of
    confidence or fiducial limits", Biometrika 26, 1934), which knows that what never happened yet may. Its count is
    lowered by the design effect of a tenth of the variance lying between sessions (`resampling.clump`).
    """
    import numpy as np

    number, hit = float(sum(of)), float(sum(hits))
    if number <= 0:
        return None
    low, high = share_bounds(hits, of, sessions)
    return Figure(
        value=hit / number,
        lower=float(np.clip(low, 0.0, 1.0)),
        upper=float(np.clip(high, 0.0, 1.0)),
        sessions=sessions,
        counted=round(number),
    )


def share_bounds(hits: Sequence[float], of: Sequence[float], sessions: int) -> tuple[float, float]:
    """The bounds of `share`, without a look at whether there is anything."""
    import numpy as np
    from scipy.special import betaincinv

    number, hit = float(sum(of)), float(sum(hits))
    alike = float(resampling.clump(np.array(number / max(1, sessions))))
    n, x = number / alike, hit / alike
    exact_low = float(betaincinv(x, n - x + 1, LEVELS[0])) if x > 0 else 0.0
    exact_high = float(betaincinv(x + 1, n - x, LEVELS[1])) if n - x > 1e-9 else 1.0
    low, high = _bounds(hits, of)
    return min(low, exact_low), max(high, exact_high)


def quality_ratio(pairs: Pairs) -> Figure | None:
    """Local's mean score over the cloud's on requests that both answered, paired, over sources.

    None where the cloud's mean is not clearly above 0: a share of nothing means nothing. As uncertain as if one pair
    more had been lost and one more gained (`resampling.standard_errors`).
    """
    if not pairs.count or _bounds(pairs.cloud, pairs.count)[0] <= 0:
        return None
    low, high = _bounds(pairs.local, pairs.cloud, UNSEEN)
    value = sum(pairs.local) / sum(pairs.cloud)
    return Figure(
        value=value,
        lower=max(0.0, low),
        upper=high,
        unit="ratio",
        sessions=round(sum(pairs.sources)),
        counted=round(sum(pairs.count)),
    )


def lines_of(month: Month, outlay_usd: float | None, by_token: bool = False) -> tuple[Line, tuple[Line, ...]]:
    """The fleet's figures and every agent's. `outlay_usd`: what serving locally costs in the time that is covered,
    whoever asks; agents share it by the tokens that local models handled for them. `by_token`: these tokens are paid
    by their price beside it, as they are where it is None; otherwise machines by the hour take that price's place."""
    worked = max(1, month.fleet.tallies.local_tokens)

    def of(scope: Scope) -> Line:
        mine = 1.0 if not scope.name else scope.tallies.local_tokens / worked
        return _line(scope, (outlay_usd or 0.0) * mine, by_token or outlay_usd is None)

    return of(month.fleet), tuple(of(a) for a in month.agents)


def _line(scope: Scope, outlay_usd: float, by_token: bool) -> Line:
    t, sessions = scope.traffic, round(scope.traffic.total("sessions"))
    answered, all_cloud = t.total("answered"), t.total("all_cloud")
    cloud_usd = t.total("cloud_paid") + t.total("shadow_cloud_paid")
    # Machines are paid by the hour, whatever the price of a token says: the two are not added up.
    cost = t.total("paid" if by_token else "cloud_paid") + outlay_usd
    shadow = t.total("shadow_paid" if by_token else "shadow_cloud_paid")
    spent = _spent(scope, outlay_usd, by_token)
    return Line(
        name=scope.name,
        answered=round(answered),
        failed=round(t.total("due") - t.total("served")),
        sessions=sessions,
        prompt_tokens=scope.tallies.prompt_tokens,
        completion_tokens=scope.tallies.completion_tokens,
        cost_usd=cost,
        shadow_usd=shadow,
        cloud_usd=cloud_usd,
        all_cloud_usd=all_cloud,
        cost_per_call=cost / answered if answered else None,
        all_cloud_per_call=all_cloud / answered if answered and all_cloud else None,
        local=share(t.local, t.answered, sessions),
        fallback=share(t.fallback, t.answered, sessions),
        availability=share(t.served, t.due, sessions),
        saved=_saved(spent, t.all_cloud, t.sessions) if all_cloud > 0 else None,
        saved_share=_saved_share(spent, t.all_cloud, sessions) if all_cloud > 0 else None,
        quality={kind: found for kind, p in scope.pairs.items() if (found := quality_ratio(p)) is not None},
        p50=_seconds(scope.p50),
        p95=_seconds(scope.p95),
    )


def _spent(scope: Scope, outlay_usd: float, by_token: bool) -> list[float]:
    """What each group of sessions cost; an hour's price does not depend on who came, so that all share it alike."""
    t = scope.traffic
    answers, shadows = (t.paid, t.shadow_paid) if by_token else (t.cloud_paid, t.shadow_cloud_paid)
    each = outlay_usd / max(1.0, sum(t.sessions))
    return [a + b + each * n for a, b, n in zip(answers, shadows, t.sessions, strict=True)]


def _saved(spent: Sequence[float], all_cloud: Sequence[float], sessions: Sequence[float]) -> Figure:
    """All-cloud less what was spent, shadow traffic too: the mean a session, times the sessions."""
    saved, number = [a - s for a, s in zip(all_cloud, spent, strict=True)], sum(sessions)
    low, high = _bounds(saved, sessions)
    counted = round(number)
    return Figure(
        value=sum(saved), lower=low * number, upper=high * number, unit="usd", sessions=counted, counted=counted
    )


def _saved_share(spent: Sequence[float], all_cloud: Sequence[float], sessions: int) -> Figure:
    low, high = _bounds(spent, all_cloud)
    value = 1 - math.fsum(spent) / math.fsum(all_cloud)
    lower, upper = min(1 - high, value), min(1.0, max(1 - low, value))  # the last digits of sums differ
    return Figure(value=value, lower=lower, upper=upper, sessions=sessions, counted=sessions)


def _seconds(found: Latency | None) -> Figure | None:
    if found is None:
        return None
    return Figure(
        value=found.value, lower=found.lower, upper=found.upper, unit="seconds", sessions=found.sessions,
        counted=found.requests,
    )  # fmt: skip


def _bounds(sums: Sequence[float], counts: Sequence[float], unseen: float = 0.0) -> tuple[float, float]:
    """Two-sided bounds of sum over count, by groups; infinite where there is one group only."""
    import numpy as np

    low, high = resampling.bounds(np.array([sums], dtype=float), np.array([counts], dtype=float), LEVELS, unseen)[0]
    return float(low), float(high)


def outlook(line: Line, outlay: Outlay | None, hours: float) -> BreakEven | None:
    """When serving locally has paid for itself, by this month; None where nobody said what it costs, or there is
    nothing to compare with. `line`: with that outlay taken off what was saved."""
    if outlay is None or line.saved is None or hours <= 0:
        return None
    machines = outlay.usd_in(hours)
    avoided = (line.saved.value + machines, line.saved.lower + machines, line.saved.upper + machines)
    return break_even(avoided, line.answered, hours, outlay)
