"""What a trained adapter makes of a dataset's validation split, example by example."""

from __future__ import annotations

from pathlib import Path

from pawl.curation.dataset import DatasetVersion
from pawl.errors import NotEnoughData
from pawl.training.chat_format_transformers import ChatFormat
from pawl.training.search import ExampleLoss


def example_losses(base_dir: Path, trained: Path, dataset: DatasetVersion, max_tokens: int) -> list[ExampleLoss]:
    """Losses of all validation examples of at most `max_tokens` tokens, on the model as it is served: the base in the
    type that this machine computes in, with the adapter in `trained`, or the whole model there.

    Raises NotEnoughData without such examples, ModelFileError where the model cannot be loaded.
    """
    import torch

    from pawl.training.losses_torch import validation_losses
    from pawl.training.models_peft import best_dtype, served

    form = ChatFormat(base_dir)
    rows = [(e, form.encode(e)) for e in dataset.examples if e.split == "validation"]
    rows = [(e, tokens) for e, tokens in rows if len(tokens.input_ids) <= max_tokens]
    if not rows:
        raise NotEnoughData(
            f"the dataset of {dataset.agent} has no validation example of at most {max_tokens} tokens to compare "
            "settings by: raise training.max_tokens, or prepare a dataset with more sources, of which "
            "data.validation_percent go there"
        )
    dtype = best_dtype()
    model = served(base_dir, trained)
    pad = model.config.pad_token_id if model.config.pad_token_id is not None else 0
    with torch.inference_mode():
        losses = validation_losses(model, [tokens for _, tokens in rows], pad=pad, dtype=dtype)
    return [
        ExampleLoss(e.id, e.source, loss * tokens.completion_tokens, tokens.completion_tokens)
        for (e, tokens), loss in zip(rows, losses, strict=True)
    ]
