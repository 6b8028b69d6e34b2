"""Packed text as the trainer takes it, and how well a model predicts text that it did not learn from."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from pawl.training.chat_format_transformers import ChatFormat, Encoded
from pawl.training.pretraining import pack

if TYPE_CHECKING:
    import torch


def encoded(documents: Sequence[str], form: ChatFormat, max_tokens: int) -> list[Encoded]:
    """Documents as packed sequences in which every token is learnt, but for the first of each sequence."""
    packed = pack((form.text(d) for d in documents), max_tokens, form.end[0])
    return [Encoded(ids, list(ids)) for ids in packed]


def perplexity(model: Any, items: Sequence[Encoded], *, pad: int, dtype: torch.dtype) -> float:
    """exp of the mean loss over all predicted tokens of the sequences; nan where there are none. Dropout is off.

    Comparable only between models of one tokenizer, on the same sequences.
    """
    from pawl.training.losses_torch import validation_losses

    tokens = [len(e.input_ids) - 1 for e in items]
    if not sum(tokens):
        return math.nan
    # Few rows at a time: unlike an example, every position of these needs the whole vocabulary.
    losses = validation_losses(model, items, pad=pad, dtype=dtype, batch_size=2)
    return math.exp(sum(loss * n for loss, n in zip(losses, tokens, strict=True)) / sum(tokens))
