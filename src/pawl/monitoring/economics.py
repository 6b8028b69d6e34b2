"""What was spent and what was saved against sending everything to the cloud (pure).

These are the independence figures: they compare with a cloud upstream and never with the champion, whose
comparison is `pawl.evaluation.report`. Answers that clients got and shadow traffic are costed apart, so a saving
can be read with and without what was paid to learn.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from pawl.fleet.upstream import UpstreamSpec
from pawl.lake.records import Interaction

MAX_POINTS = 240  # more than a plot's width can show


class CostPoint(msgspec.Struct, frozen=True):
    """Cumulative US dollars at one moment (epoch seconds)."""

    at: float
    spent: float  # on answers to clients
    shadow: float  # on shadow traffic
    all_cloud: float  # what the answers would have cost in the cloud


class Economics(msgspec.Struct, frozen=True, kw_only=True):
    """Money in US dollars, counts in interactions. `failed` answers count for cost, never as answered."""

    upstream: str  # the cloud that the counterfactual is priced by
    stand_in: bool  # True: its prices are real list prices, its bills are not
    answered: int
    answered_locally: int
    failed: int
    spent_usd: float  # all answers to clients, failed ones and those that a cascade kept from them too
    cloud_usd: float  # of that, what cloud upstreams took
    shadow_usd: float  # what shadow traffic took
    shadows: int
    all_cloud_usd: float
    priced_by_shadow: int  # answered interactions priced by their own cloud shadow
    priced_by_own: int  # ... by their own tokens, for want of a cloud shadow; what the cloud answered, by its bill
    unpriced: int  # ... not at all: no usage was recorded
    points: tuple[CostPoint, ...] = ()

    @property
    def local_share(self) -> float | None:
        """Share of answered interactions that local models answered, 0..1; None before the first."""
        return self.answered_locally / self.answered if self.answered else None

    @property
    def saved_usd(self) -> float:
        """All-cloud less what the answers cost; negative where local was dearer."""
        return self.all_cloud_usd - self.spent_usd

    @property
    def net_saved_usd(self) -> float:
        """The saving less what shadow traffic cost."""
        return self.saved_usd - self.shadow_usd


def price(upstream: UpstreamSpec, prompt_tokens: int, completion_tokens: int, cached_tokens: int = 0) -> float:
    """US dollars that so many tokens cost at an upstream; `cached_tokens` are those of the prompt read from a cache."""
    prompt = upstream.usd_per_million_prompt or 0.0
    cached = upstream.usd_per_million_cached_prompt
    fresh = prompt_tokens - cached_tokens
    return (
        fresh * prompt
        + cached_tokens * (prompt if cached is None else cached)
        + completion_tokens * (upstream.usd_per_million_completion or 0.0)
    ) / 1e6


def succeeded(interaction: Interaction) -> bool:
    """Whether somebody got a whole answer."""
    return interaction.error is None and not interaction.broken and 200 <= interaction.status < 300


def summarise(interactions: Iterable[Interaction], *, name: str, upstream: UpstreamSpec) -> Economics:
    """Add up one agent's (or one fleet's) interactions, in any order; a repeated id counts once.

    The counterfactual "all cloud" is, of what `name` itself answered, what it took for that: its prompt cache saves
    money without any local model. Of other answers it is what their own successful shadow on `name` cost, since a local
    model's answer may be shorter or longer than what the cloud would have written; where there is none, the price of
    their own tokens at `upstream`.
    """
    rows = sorted({i.id: i for i in interactions}.values(), key=lambda i: (i.at, i.id))
    seen_by_cloud = {
        i.shadow_of: i
        for i in rows
        if i.role == "shadow" and i.arm == name and i.shadow_of and succeeded(i) and _used(i)
    }
    answered = local = failed = shadows = by_shadow = by_own = unpriced = 0
    spent = cloud = shadow = all_cloud = 0.0
    points: list[CostPoint] = []
    for i in rows:
        if i.role == "shadow":
            shadows += 1
            shadow += i.cost_usd
        else:
            spent += i.cost_usd
            cloud += i.cost_usd if i.arm_kind == "cloud" else 0.0
            if i.role == "draft":
                pass  # paid for, and kept from the client
            elif not succeeded(i):
                failed += 1
            else:
                answered += 1
                local += i.arm_kind == "local"
                own = i.arm == name and i.arm_kind == "cloud"
                basis = i if own else seen_by_cloud.get(i.id, i)
                # Of a shadow that was recorded before anybody stated prices, the tokens are all that is known.
                billed = own or (basis is not i and basis.cost_usd > 0)
                all_cloud += basis.cost_usd if billed else price(upstream, basis.prompt_tokens, basis.completion_tokens)
                by_shadow += basis is not i
                by_own += basis is i and _used(i)
                unpriced += basis is i and not _used(i)
        points.append(CostPoint(i.at, spent, shadow, all_cloud))
    return Economics(
        upstream=name,
        stand_in=upstream.stand_in,
        answered=answered,
        answered_locally=local,
        failed=failed,
        spent_usd=spent,
        cloud_usd=cloud,
        shadow_usd=shadow,
        shadows=shadows,
        all_cloud_usd=all_cloud,
        priced_by_shadow=by_shadow,
        priced_by_own=by_own,
        unpriced=unpriced,
        points=_thin(points),
    )


def _used(i: Interaction) -> bool:
    return i.prompt_tokens + i.completion_tokens > 0


def _thin(points: list[CostPoint]) -> tuple[CostPoint, ...]:
    """At most MAX_POINTS of them; the first and the last stay."""
    if len(points) <= MAX_POINTS:
        return tuple(points)
    step = (len(points) - 1) / (MAX_POINTS - 1)
    return tuple(points[round(k * step)] for k in range(MAX_POINTS))
