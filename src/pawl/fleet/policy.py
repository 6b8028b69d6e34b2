"""What may be trained on at all: licences of base models and of data."""

from __future__ import annotations

from pydantic import Field

from pawl.fleet.base import Spec


class PolicySpec(Spec):
    """Checked before any training; a violation stops the run.

    What an agent may learn from is its own `data.privacy` and `data.consent`.
    """

    licences: tuple[str, ...] = Field(
        default=("Apache-2.0", "MIT"), min_length=1, description="SPDX ids that a base model may have"
    )
    data_licences: tuple[str, ...] | None = Field(
        default=None, description="that a dataset may state (data.licence); null: any, or none stated"
    )
