"""Where an agent's tasks come from."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from pawl.fleet.base import Spec


class TaskSourceSpec(Spec):
    """Where an agent's tasks come from. Each task takes some of the kinds; the first it takes is its default."""

    kind: Literal["botocore", "openapi", "python", "jsonl", "simulated", "html"] | None = Field(
        default=None, description="not given: the task's own default, made from what is installed"
    )
    location: str | None = Field(default=None, description="path or URL: an OpenAPI 3 document, a folder, a JSONL file")
    max_schema_chars: int = Field(default=400, ge=50)
