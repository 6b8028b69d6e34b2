"""How an agent's champion is served."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from pawl.fleet.base import Spec


class HttpRouteSpec(Spec):
    """A Gateway API HTTPRoute that splits this agent's requests between two Services (docs/serving.md)."""

    namespace: str
    name: str
    champion: str = Field(description="the Service that serves the champion")
    challenger: str = Field(description="the one that serves the challenger")


class ServingSpec(Spec):
    """As an adapter beside all others, or merged into the base on a replica of its own (docs/serving.md)."""

    champion: Literal["adapter", "merged"] = "adapter"
    upstream: str | None = Field(
        default=None, description="merged: the local upstream, other than the cluster, whose server serves it"
    )
    http_route: HttpRouteSpec | None = Field(
        default=None, description="its weights follow the rollout; for requests that do not come through this gateway"
    )

    @model_validator(mode="after")
    def _merged_has_a_place(self) -> ServingSpec:
        if (self.champion == "merged") != (self.upstream is not None):
            raise ValueError("serving: give champion: merged and its upstream, or neither")
        return self
