"""Whether an agent's training is allowed, asked before a model is downloaded and again where its files must say it."""

from __future__ import annotations

from pathlib import Path

from pawl.curation.dataset import DatasetVersion
from pawl.improvement.workplace import Workplace
from pawl.training.licences import licence_of
from pawl.training.policy import Violation, check, demand


def violations(place: Workplace, dataset: DatasetVersion | None, base_dir: Path | None = None) -> list[Violation]:
    """What forbids it by all that is known now.

    `base_dir`: the base model, once it is here. Until then a licence that only its files could tell forbids nothing.
    """
    base = place.fleet.base_model
    local = Path(base.source).expanduser()
    here = base_dir or (local if local.is_dir() else None)
    licence = licence_of(base.source, here, base.licence)
    known = licence if licence or here is not None else None
    return check(place.fleet.policy, place.agent, base.source, known, dataset)


def demand_allowed(place: Workplace, dataset: DatasetVersion, base_dir: Path | None = None) -> None:
    """PolicyViolation names the model or the rows that forbid it."""
    demand(violations(place, dataset, base_dir))
