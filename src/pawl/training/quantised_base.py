"""Base models with quantised weights: which are, and whether what it costs them was measured (pure)."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec

from pawl.evaluation.report import Interval


class BaseQuality(msgspec.Struct, frozen=True, kw_only=True):
    """A quantised base beside the model it was made from, on the same validation examples.

    Losses are means in nats a completion token; `lost` is their paired difference, positive where quantising cost
    something, with bounds clustered by source.
    """

    method: str
    base_sha256: str
    reference_sha256: str
    dataset: str
    examples: int
    loss: float
    reference_loss: float
    lost: Interval


def quantisation_of(folder: Path) -> str:
    """What quantised a model's weights (gptq, awq, compressed-tensors, ...); empty where nothing did."""
    try:
        config = json.loads((folder / "config.json").read_text()).get("quantization_config") or {}
    except (OSError, ValueError):
        return ""
    return str(config.get("quant_method", "")) if isinstance(config, dict) else ""


def problem(method: str, kept: BaseQuality | None, most: float) -> str | None:
    """Why a base may not be used; None where it may. `most`: nats a token that quantising may cost."""
    if not method:
        return None
    if kept is None:
        return (
            f"the base model is quantised ({method}) and what that costs was not measured: name the model it was made "
            "from as base_model.unquantised and run `pawl base-quality AGENT`"
        )
    if kept.lost.mean > most:
        return (
            f"quantising ({method}) costs the base model {kept.lost.mean:.3f} nats a token "
            f"[{kept.lost.lower:.3f}, {kept.lost.upper:.3f}] on {kept.examples} examples, more than "
            f"base_model.max_quality_loss {most:g}: use a better quantisation, or raise the limit"
        )
    return None
