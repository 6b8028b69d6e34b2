"""How an agent's training data is made: what teaches, what it weighs, what is dropped."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from pawl.fleet.base import Spec
from pawl.fleet.limits import Privacy


class QualitySpec(Spec):
    """Weights of what is known about an answer; its quality is their weighted mean, 0..1."""

    grader: float = Field(default=1.0, ge=0, description="the platform's own oracle")
    outcome: float = Field(default=1.0, ge=0, description="what clients' own checks said")
    accepted: float = Field(default=0.5, ge=0)
    rating: float = Field(default=0.5, ge=0)
    review: float = Field(default=2.0, ge=0, description="raters of a blind sample")

    @model_validator(mode="after")
    def _something_counts(self) -> QualitySpec:
        if not any((self.grader, self.outcome, self.accepted, self.rating, self.review)):
            raise ValueError("at least one weight must be above 0")
        return self


class RequirementsSpec(Spec):
    """What the readiness card asks for. `training.min_examples` alone stops a run; these are shown green or red."""

    production_examples: int = Field(default=10_000, ge=1, description="before the agent serves production")
    retrain_examples: int = Field(default=1_000, ge=1, description="new ones, for a retrain")
    collection_days: float = Field(default=30, ge=0, description="span of the interactions learnt from")
    min_accuracy: float = Field(
        default=0.9, ge=0, le=1, description="share of reviewed examples that raters call right"
    )
    max_median_age_days: float = Field(default=60, gt=0)
    min_sources: int = Field(default=10, ge=1)
    min_diversity: float = Field(
        default=0.5, ge=0, le=1, description="effective number of clusters over the number of clusters"
    )
    max_class_share: float = Field(default=0.6, gt=0, le=1)


class DataSpec(Spec):
    """From interactions and feedback to a dataset version."""

    teachers: tuple[Literal["cloud", "local", "bugs"], ...] = Field(
        default=("cloud",),
        description="whose good answers are learnt from; corrections by people always are. bugs: reports with a root "
        "cause, for agents that find causes",
    )
    min_examples: int = Field(default=200, ge=1, description="fewer new training examples stop the run")
    max_examples: int = Field(default=20_000, ge=1)
    min_quality: float = Field(default=0.99, ge=0, le=1)
    quality: QualitySpec = QualitySpec()
    calibrated: bool = Field(
        default=False, description="quality as raters would see it (`pawl review report`), where that predicts better"
    )
    verify: bool = Field(default=True, description="the task's oracle must accept every example that it can grade")
    near_duplicate: float = Field(
        default=0.9, gt=0.5, le=1, description="Jaccard similarity of prompts from which two are one"
    )
    semantic_duplicate: float | None = Field(
        default=0.98, gt=0.5, le=1, description="cosine similarity from which two prompts are one; null: not looked at"
    )
    embeddings: str = Field(
        default="lsa", description="lsa, or an embedding model for transformers: a local folder or a Hugging Face id"
    )
    clusters: int = Field(default=64, ge=1, description="of prompts, covered in turns")
    max_source_share: float = Field(default=0.2, gt=0, le=1)
    max_class_share: float = Field(default=0.6, gt=0, le=1, description="of one scenario class")
    hard_share: float = Field(default=0.25, ge=0, le=1, description="room kept for what the champion got wrong")
    failing_share: float = Field(
        default=0.25,
        ge=0,
        le=0.5,
        description="room kept for the scenario classes in which what serves now failed its last comparison most",
    )
    half_life_days: float = Field(default=90, gt=0, description="age at which an example weighs half")
    replay_share: float = Field(default=0.25, ge=0, le=1, description="older examples, relative to the new ones")
    augment: float = Field(default=0.0, ge=0, le=5, description="verified variants an example, on average")
    preference_gap: float = Field(default=0.5, gt=0, le=1, description="difference of quality that makes a pair")
    regression_items: int = Field(default=100, ge=0, description="live failures kept as permanent tests")
    validation_percent: int = Field(default=15, ge=1, le=40, description="share of sources for choosing settings")
    test_percent: int = Field(default=15, ge=1, le=40, description="share of sources held out for the comparison")
    late_days: float = Field(
        default=30, ge=0, description="feedback of the window brings older interactions back, up to this age"
    )
    licence: str = Field(default="", description="under which the traffic may be learnt from; on the datasheet")
    privacy: tuple[Privacy, ...] = Field(
        default=("open", "local_only", "strict"), min_length=1, description="of the interactions it may learn from"
    )
    consent: Literal["assumed", "required"] = Field(
        default="assumed",
        description="assumed: learnt from unless a client or its key said no; required: only where a client said yes",
    )
    scrub_names: bool = Field(default=True, description="names of persons, best effort")
    languages: tuple[str, ...] = Field(default=("en",), description="ISO 639-1; others are warned of")
    requirements: RequirementsSpec = RequirementsSpec()
    seed: int = 17

    @model_validator(mode="after")
    def _consent_can_be_had(self) -> DataSpec:
        if self.consent == "required" and "bugs" in self.teachers:
            raise ValueError("consent: required, but nobody grants consent to a bug report: leave bugs out of teachers")
        return self
