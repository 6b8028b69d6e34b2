"""How strictly code that models write is kept in where it is run."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from pawl.fleet.base import Spec


class SandboxSpec(Spec):
    """What a machine must be able to do before it runs generated code (docs/sandbox.md)."""

    least: Literal["bubblewrap", "namespaces", "guard"] | None = Field(
        default=None,
        description="the weakest level that will do; where a machine has less, answers that must be run cannot be "
        "graded. Not given: the best there is, with a warning where that is `guard`",
    )
