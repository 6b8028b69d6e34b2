"""What quantising cost the fleet's base model: measured once, kept beside the models, demanded before training."""

from __future__ import annotations

from pathlib import Path

import msgspec

from pawl.curation import dataset as datasets
from pawl.curation.files import write_whole
from pawl.errors import ConfigError, ModelFileError
from pawl.improvement.workplace import Workplace
from pawl.training.quantised_base import BaseQuality, problem, quantisation_of


def measure_base(place: Workplace, dataset: Path) -> BaseQuality | None:
    """The measurement on that dataset's validation split; None where the base model is not quantised.

    ConfigError where fleet.yaml does not name the model it was made from.
    """
    from pawl.training.base_model_transformers import prepare_base
    from pawl.training.quantised_base_transformers import measure

    base = place.fleet.base_model
    folder = prepare_base(base.source, place.settings.models_dir)
    if not quantisation_of(folder):
        return None
    if base.unquantised is None:
        raise ConfigError(
            str(place.settings.fleet), ["base_model.unquantised must name the model that the quantised one was made of"]
        )
    reference = prepare_base(base.unquantised, place.settings.models_dir)
    found = measure(folder, reference, datasets.load(dataset), place.agent.training.max_tokens)
    place.settings.models_dir.mkdir(parents=True, exist_ok=True)
    write_whole(_file(place, found.base_sha256), msgspec.json.encode(found))
    return found


def demand_measured(place: Workplace, base_dir: Path) -> None:
    """ModelFileError where the base is quantised, and that was not measured or costs more than fleet.yaml allows."""
    from pawl.training.base_model_transformers import base_sha256

    method = quantisation_of(base_dir)
    if not method:
        return
    try:
        kept = msgspec.json.decode(_file(place, base_sha256(base_dir)).read_bytes(), type=BaseQuality)
    except (OSError, msgspec.MsgspecError):
        kept = None
    found = problem(method, kept, place.fleet.base_model.max_quality_loss)
    if found:
        raise ModelFileError(found)


def _file(place: Workplace, sha256: str) -> Path:
    return place.settings.models_dir / f"quality-{sha256[:16]}.json"
