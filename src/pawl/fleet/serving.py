"""How an agent's champion is served."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from pawl.fleet.base import Spec


class HttpRouteSpec(Spec):
    """A Gateway API HTTPRoute that splits this agent's requests between two Services (docs/serving.md)."""

    namespace: str
    name: str
    champion: str = Field(description="the Service that serves the champion")
    challenger: str = Field(description="the one that serves the challenger")


class EnvoySpec(Spec):
    """An Envoy that splits this agent's requests between two of its clusters (docs/serving.md)."""

    routes: Path = Field(description="the route file that Envoy watches, in JSON; Pawl replaces it")
    admin: str = Field(default="http://127.0.0.1:9901", description="Envoy's administration interface")
    champion: str = Field(description="the cluster that serves the champion")
    challenger: str = Field(description="the one that serves the challenger")

    @model_validator(mode="after")
    def _can_be_used(self) -> EnvoySpec:
        if self.routes.suffix != ".json":
            raise ValueError(f"serving.envoy: Envoy reads a file as what its name ends in; call {self.routes} *.json")
        if not self.admin.startswith("http://"):
            raise ValueError(f"serving.envoy: admin is like http://127.0.0.1:9901, not {self.admin}")
        if self.champion == self.challenger:
            raise ValueError("serving.envoy: champion and challenger must be two clusters")
        return self


class ServingSpec(Spec):
    """As an adapter beside all others, or merged into the base on a replica of its own (docs/serving.md)."""

    champion: Literal["adapter", "merged"] = "adapter"
    upstream: str | None = Field(
        default=None, description="merged: the local upstream, other than the cluster, whose server serves it"
    )
    http_route: HttpRouteSpec | None = Field(
        default=None, description="its weights follow the rollout; for requests that do not come through this gateway"
    )

    envoy: EnvoySpec | None = Field(
        default=None, description="its weights follow the rollout, as an http_route's do; give one of the two"
    )

    @model_validator(mode="after")
    def _one_engine(self) -> ServingSpec:
        if self.http_route is not None and self.envoy is not None:
            raise ValueError("serving: give http_route or envoy, not both")
        return self

    @model_validator(mode="after")
    def _merged_has_a_place(self) -> ServingSpec:
        if (self.champion == "merged") != (self.upstream is not None):
            raise ValueError("serving: give champion: merged and its upstream, or neither")
        return self
