"""How an agent's requests find their model."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from pawl.fleet.base import Spec

Strategy = Literal["privacy_first", "cost_optimized", "quality_optimized", "latency_optimized", "balanced"]
Complexity = Literal["simple", "moderate", "complex", "very_complex"]
COMPLEXITIES: tuple[Complexity, ...] = ("simple", "moderate", "complex", "very_complex")


class CascadeSpec(Spec):
    """A cheap check of the local answer; where it fails, a stronger model answers too. Both are paid."""

    check: Literal["schema", "grader"] = Field(description="against the request's JSON schema, or the agent's grader")
    min_score: float = Field(default=0.5, ge=0, le=1, description="the grader's score that passes")
    upstream: str = Field(description="who answers where the check failed")


class RoutingSpec(Spec):
    """The models that are good enough for each complexity, and the order in which they are tried.

    The name of the serving cluster's upstream stands for the agent's own route (its champion, or its challenger
    while one is rolled out).
    """

    strategy: Strategy = "privacy_first"
    tiers: dict[Complexity, tuple[str, ...]] = Field(
        default={}, description="upstreams good enough for a complexity; one not listed: the agent's route"
    )
    fallback: tuple[str, ...] | None = Field(
        default=None, description="tried in order when those failed; not given: the agent's cloud shadow"
    )
    quality_floor: float | None = Field(
        default=None, ge=0, le=1, description="a mean score of the latest answers under this sends traffic elsewhere"
    )
    quality_window: int = Field(default=50, ge=5, description="scored answers that mean is taken of")
    base_complexity: int = Field(default=0, ge=0, le=6, description="points every request of this agent starts with")
    cascade: CascadeSpec | None = None
