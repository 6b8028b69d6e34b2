"""How an agent's adapter is trained: method, stages, what is kept of earlier weeks."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from pawl.fleet.base import Spec

Method = Literal["lora", "rslora", "adalora", "dora", "qlora", "full"]


class AdaLoraSpec(Spec):
    """AdaLoRA's rank schedule, as shares of the run's steps (Zhang et al., arXiv 2303.10512, section 3.3).

    The average rank falls from `initial_rank` to `training.rank` between the first and the last phase.
    """

    initial_rank: int = Field(default=24, ge=1, le=256, description="of every layer at the start")
    start_share: float = Field(default=0.1, ge=0, lt=1, description="of the steps before ranks fall (t_init)")
    final_share: float = Field(default=0.3, gt=0, lt=1, description="of the steps with the final ranks (t_final)")
    every: int = Field(default=10, ge=1, description="steps between two looks at the importance (deltaT)")
    smoothing: float = Field(default=0.85, gt=0, lt=1, description="of importance and its uncertainty (beta1, beta2)")
    orthogonality: float = Field(default=0.5, ge=0, description="weight of the regulariser")

    @model_validator(mode="after")
    def _phases_fit(self) -> AdaLoraSpec:
        if self.start_share + self.final_share >= 1:
            raise ValueError("start_share + final_share must leave steps in which ranks fall")
        return self


class PretrainSpec(Spec):
    """Continued pre-training on the team's own text, before the examples: packed, every token learnt."""

    files: tuple[str, ...] = Field(min_length=1, description="glob patterns of text files, from fleet.yaml's folder")
    max_tokens: int = Field(default=512, ge=32, description="length of a packed sequence")
    learning_rate: float = Field(default=2e-4, gt=0)
    batch_size: int = Field(default=8, ge=1)
    epochs: float = Field(default=1.0, gt=0)


class PreferenceSpec(Spec):
    """Learning from pairs of a better and a worse answer, after the examples."""

    method: Literal["dpo", "kto"] = Field(
        default="dpo", description="dpo: arXiv 2305.18290; kto, for single ratings: arXiv 2402.01306"
    )
    beta: float = Field(default=0.1, gt=0, description="how closely the result stays with what it starts from")
    learning_rate: float = Field(default=5e-5, gt=0)
    batch_size: int = Field(default=4, ge=1, description="pairs")
    epochs: float = Field(default=1.0, gt=0)
    min_pairs: int = Field(default=50, ge=1, description="with fewer the stage is left out, and says so")


class EwcSpec(Spec):
    """Elastic weight consolidation around the champion (Kirkpatrick et al., arXiv 1612.00796, equation 3)."""

    strength: float = Field(default=0.1, gt=0, description="lambda, in units of the mean Fisher information")
    examples: int = Field(default=64, ge=1, description="earlier ones, for the Fisher diagonal")


class MergeSpec(Spec):
    """The trained adapter averaged with others; the result is judged like any challenger."""

    method: Literal["linear", "ties"] = Field(default="linear", description="ties: arXiv 2306.01708")
    others: tuple[str, ...] = Field(default=("champion",), description="`champion`, or other agents of the fleet")
    weight: float = Field(default=0.5, gt=0, lt=1, description="of the new adapter; the others share the rest")
    density: float = Field(default=0.5, gt=0, le=1, description="share of values that TIES keeps of each")


class SearchSpec(Spec):
    """Bounds of `pawl search`. One value in a range fixes it."""

    ranks: tuple[int, ...] = (8, 16, 32)
    learning_rates: tuple[float, float] = (2e-4, 3e-3)
    methods: tuple[Method, ...] = ("lora", "rslora")
    epochs: tuple[float, float] = (1.0, 3.0)
    trials: int = Field(default=12, ge=1)
    minutes: float = Field(default=120.0, gt=0, description="no trial begins after that")


class TrainingSpec(Spec):
    """How an adapter is trained."""

    method: Method = Field(default="lora", description="docs/training.md tells which can be hot-loaded")
    rank: int = Field(default=16, ge=1, le=256)
    alpha: int = Field(default=32, ge=1)
    dropout: float = Field(default=0.0, ge=0, lt=1)
    target_modules: str | tuple[str, ...] = Field(default="all-linear", description="or names of layers")
    learning_rate: float = Field(default=1e-3, gt=0)
    batch_size: int = Field(default=8, ge=1)
    epochs: float = Field(default=1.0, gt=0)
    max_tokens: int = Field(default=640, ge=32, description="of an example, prompt and completion")
    long: Literal["drop", "truncate", "split"] = Field(
        default="drop",
        description="examples longer than max_tokens: left out; prompt cut at its beginning; completion in pieces",
    )
    weighted: bool = Field(default=True, description="quality and recency weigh the examples' losses")
    warmup_share: float = Field(default=0.05, ge=0, lt=1)
    seed: int = 17
    start: str = Field(
        default="champion", description="what it continues: champion, base, or another agent's name for its champion"
    )
    merged: bool = Field(
        default=False, description="serve it merged, as a model of its own: what dora and full need in vLLM"
    )
    adalora: AdaLoraSpec = AdaLoraSpec()
    pretrain: PretrainSpec | None = None
    preference: PreferenceSpec | None = None
    ewc: EwcSpec | None = None
    merge: MergeSpec | None = None

    @model_validator(mode="after")
    def _method_fits(self) -> TrainingSpec:
        problems = []
        if self.method in {"dora", "full"} and not self.merged:
            problems.append(
                f"vLLM cannot load {self.method} into a running server: set merged: true (a model of its own, rolled "
                "out by restarting replicas), or method: lora"
            )
        if self.method == "full" and (self.ewc or self.merge):
            problems.append("ewc and merge work on adapters, not on full weights: leave them out, or method: lora")
        if self.method == "full" and self.start != "base":
            problems.append("full begins with the base model's own weights and continues no adapter: set start: base")
        if self.method == "dora" and self.merge:
            problems.append("merge averages plain LoRAs, and a DoRA is none: leave merge out, or method: lora")
        if self.method == "adalora" and self.adalora.initial_rank <= self.rank:
            problems.append(f"adalora.initial_rank {self.adalora.initial_rank} must be above rank {self.rank}")
        if self.method == "adalora" and self.start != "base":
            problems.append("adalora begins anew, its ranks are not those of a champion: set start: base")
        if self.ewc and self.start == "base":
            problems.append("ewc holds on to what training continues: set start: champion")
        if self.method in {"adalora", "full"} and self.preference:
            problems.append("preference works on a plain adapter: leave it out, or method: lora")
        if problems:
            raise ValueError("; ".join(problems))
        return self

    @property
    def greatest_rank(self) -> int:
        """Of the adapter that is served: what the cluster must be started for."""
        return self.adalora.initial_rank if self.method == "adalora" else self.rank
