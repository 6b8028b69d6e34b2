"""Loads base models, quantised ones too, and measures what quantising cost one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pawl.curation.dataset import DatasetVersion
from pawl.errors import ModelFileError, NotEnoughData
from pawl.evaluation.paired import clustered_mean
from pawl.training.base_model_transformers import base_sha256
from pawl.training.chat_format_transformers import ChatFormat, Encoded
from pawl.training.quantised_base import BaseQuality, quantisation_of


def load_base(folder: Path, dtype: Any, **how: Any) -> Any:
    """The model in that folder, as transformers loads it.

    Weights of compressed-tensors are unpacked at loading: an adapter is trained on what the server computes with, and
    a packed layer has no weight that one could be merged into. GPTQ and AWQ need their own packages; ModelFileError
    names what is missing.
    """
    from transformers import AutoModelForCausalLM

    method = quantisation_of(folder)
    if method == "compressed-tensors":
        from transformers import CompressedTensorsConfig

        how["quantization_config"] = CompressedTensorsConfig(dequantize=True)
    try:
        return AutoModelForCausalLM.from_pretrained(str(folder), dtype=dtype, **how)
    except ImportError as e:
        raise ModelFileError(
            f"base model {folder.name} is quantised by {method or 'a package'} that is not installed here: {e}"
        ) from e
    except (OSError, ValueError, KeyError) as e:
        raise ModelFileError(f"base model in {folder.name} cannot be loaded ({e}); prepare it again") from e


def measure(
    quantised: Path, unquantised: Path, dataset: DatasetVersion, max_tokens: int, *, alpha: float = 0.05
) -> BaseQuality:
    """Both models' losses on the validation split. NotEnoughData where no example of it fits into `max_tokens`.

    ModelFileError where the two cannot be compared, having other tokens.
    """
    form, other = ChatFormat(quantised), ChatFormat(unquantised)
    rows = [e for e in dataset.examples if e.split == "validation"]
    items = [(e.source, form.encode(e)) for e in rows]
    if any(form.encode(e) != other.encode(e) for e in rows[:8]):
        raise ModelFileError(f"{quantised.name} and {unquantised.name} have other tokenizers: no pair to compare")
    items = [(s, i) for s, i in items if len(i.input_ids) <= max_tokens]
    if not items:
        raise NotEnoughData(f"the dataset of {dataset.agent} has no validation example of at most {max_tokens} tokens")
    encoded = [i for _, i in items]
    one, two = (_losses(folder, encoded) for folder in (quantised, unquantised))
    pairs = [(source, a - b) for (source, _), a, b in zip(items, one, two, strict=True)]
    return BaseQuality(
        method=quantisation_of(quantised),
        base_sha256=base_sha256(quantised),
        reference_sha256=base_sha256(unquantised),
        dataset=dataset.fingerprint,
        examples=len(items),
        loss=sum(one) / len(one),
        reference_loss=sum(two) / len(two),
        lost=clustered_mean(pairs, alpha=alpha),
    )


def _losses(folder: Path, encoded: Sequence[Encoded]) -> list[float]:
    from pawl.training.losses_torch import validation_losses
    from pawl.training.models_peft import best_dtype

    dtype = best_dtype()
    model = load_base(folder, dtype)
    pad = model.config.pad_token_id if model.config.pad_token_id is not None else 0
    return validation_losses(model, encoded, pad=pad, dtype=dtype)
