"""How an agent's champion is served."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from pawl.fleet.base import Spec


class ServingSpec(Spec):
    """As an adapter beside all others, or merged into the base on a replica of its own (docs/serving.md)."""

    champion: Literal["adapter", "merged"] = "adapter"
    upstream: str | None = Field(
        default=None, description="merged: the local upstream, other than the cluster, whose server serves it"
    )

    @model_validator(mode="after")
    def _merged_has_a_place(self) -> ServingSpec:
        if (self.champion == "merged") != (self.upstream is not None):
            raise ValueError("serving: give champion: merged and its upstream, or neither")
        return self
