"""How champion and challenger are compared before any client meets the challenger."""

from __future__ import annotations

from pydantic import Field

from pawl.fleet.base import Spec
from pawl.fleet.judge import JudgeSpec


class EvaluationSpec(Spec):
    """How champion and challenger are compared offline."""

    items: int = Field(default=120, ge=10, description="`pawl plan-evaluation` says how many the margin needs")
    margin: float = Field(default=0.05, gt=0, lt=1, description="the loss that does not matter")
    alpha: float = Field(default=0.05, gt=0, lt=0.5)
    power: float = Field(default=0.8, ge=0.5, lt=1, description="chance to see what is there, for planning")
    min_score: float = Field(default=0.0, ge=0, le=1, description="a challenger's lower bound must reach this")
    pass_score: float = Field(default=0.5, gt=0, le=1, description="from which an answer passes; below, it failed")
    protected: tuple[str, ...] = Field(
        default=(), description="slices that may not regress: scenario classes of the task, or `both conform`"
    )
    protected_margin: float | None = Field(
        default=None, gt=0, lt=1, description="the loss that does not matter in a protected slice; null: as margin"
    )
    token_accuracy_items: int = Field(
        default=24, ge=0, description="items with a known right answer on which it is measured; 0: not at all"
    )
    protected_items: int = Field(
        default=0,
        ge=0,
        description="held-out items of each protected scenario class, where there are so many: those beyond the draw "
        "count in the slice's own test alone",
    )
    must_pass: tuple[str, ...] = Field(
        default=(), description="items of the regression suite, by the beginning of their id, that may never fail"
    )
    judge: JudgeSpec | None = Field(
        default=None, description="only for agents without an oracle: a model that prefers one of two answers"
    )
