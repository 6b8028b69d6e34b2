"""A registered version gets its card, and what `mlflow` alone needs to load it."""

from __future__ import annotations

import logging
import time

from pawl.errors import PawlError
from pawl.improvement.export_card import BaseModel, card, readme
from pawl.improvement.workplace import Candidate, Workplace
from pawl.registry.adapter_hash import ADAPTER_FILES
from pawl.registry.port import Packing, Version

log = logging.getLogger("pawl.registry")


def describe(place: Workplace, version: Version, candidate: Candidate) -> None:
    """Write the version's card by what this machine knows of its making; with the base model at hand, its packing."""
    from pawl.improvement.exporting import evidence_of
    from pawl.training.adapter_check import base_at_hand
    from pawl.training.base_model_transformers import base_name
    from pawl.training.licences import licence_of

    base, folder = place.fleet.base_model, base_at_hand(place.fleet.base_model, place.settings.models_dir)
    sha256 = version.tags.get("base_sha256", "")
    if folder is None:
        known, packing = BaseModel(base.source, base.licence, sha256), None
        log.warning("%s is registered without what `mlflow` needs to load it: no base model here", version.adapter)
    else:
        known = BaseModel(base_name(folder), licence_of(base.source, folder, base.licence), sha256)
        whole = not (candidate.adapter / ADAPTER_FILES[0]).exists()
        packing = Packing(base_dir=folder, base_name=known.name, max_tokens=place.agent.max_tokens, whole=whole)
    form = "merged" if packing is not None and packing.whole else "adapter"
    at = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())
    made = card(version, form, "as trained", at, known, evidence_of(place, version), None, {})
    try:
        place.registry.describe(version, readme(made), packing)
    except OSError as e:
        raise PawlError(f"the base model in {folder} cannot be read ({e.strerror}); fetch it again: pawl base") from e
