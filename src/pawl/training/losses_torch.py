"""The loss over completions, computed only where it is needed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from pawl.training.chat_format_transformers import IGNORED, Encoded, collate

# So many tokens' activations are held at once on a CPU: about 3 GB for a 135M model.
PORTION = 1200


def completion_loss(model: Any, batch: dict[str, torch.Tensor], tokens: int | None = None) -> torch.Tensor:
    """Weighted cross entropy over the completion's tokens, in nats: their mean, or their sum divided by `tokens`.

    `batch`: `input_ids` and `labels` of shape (examples, tokens), `weights` of shape (examples). The weights are not
    normalised here: over the whole dataset their mean over tokens is 1, so that a batch of poor examples moves less.

    The vocabulary head runs only where a label is: over a small model's whole sequence it is a fifth of the compute.
    """
    core = model.get_base_model() if hasattr(model, "get_base_model") else model
    labels = batch["labels"][:, 1:]
    wanted = labels != IGNORED
    hidden = core.base_model(input_ids=batch["input_ids"], use_cache=False).last_hidden_state
    logits = core.get_output_embeddings()(hidden[:, :-1][wanted])
    return _weighted(logits, labels[wanted], _spread(batch, wanted), int(wanted.sum()) if tokens is None else tokens)


def whole_loss(model: Any, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """The same through the model's own forward pass: wrapped for several devices, only that exchanges gradients."""
    labels = batch["labels"][:, 1:]
    wanted = labels != IGNORED
    logits = model(input_ids=batch["input_ids"], use_cache=False).logits[:, :-1][wanted]
    return _weighted(logits, labels[wanted], _spread(batch, wanted), int(wanted.sum()))


def portions(batch: dict[str, torch.Tensor], most_tokens: int) -> list[dict[str, torch.Tensor]]:
    """A padded batch in parts of at most that many tokens (at least one row each), so that activations fit."""
    rows, width = batch["input_ids"].shape
    each = max(1, most_tokens // width)
    return [{k: v[i : i + each] for k, v in batch.items()} for i in range(0, rows, each)]


def validation_losses(
    model: Any, encoded: Sequence[Encoded], *, pad: int, dtype: torch.dtype, batch_size: int = 8
) -> list[float]:
    """Mean loss of each example in nats a completion token, unweighted, in the order given. Dropout is off."""
    device = next(model.parameters()).device
    order = sorted(range(len(encoded)), key=lambda i: len(encoded[i].input_ids))
    found = [0.0] * len(encoded)
    trained = model.training
    model.eval()
    try:
        with torch.no_grad(), torch.autocast(device.type, torch.bfloat16, enabled=dtype == torch.bfloat16):
            for at in range(0, len(order), batch_size):
                rows = order[at : at + batch_size]
                batch = {k: v.to(device) for k, v in collate([encoded[i] for i in rows], pad).items()}
                for i, loss in zip(rows, _by_example(model, batch), strict=True):
                    found[i] = loss
    finally:
        model.train(trained)
    return found


def _by_example(model: Any, batch: dict[str, torch.Tensor]) -> list[float]:
    core = model.get_base_model() if hasattr(model, "get_base_model") else model
    labels = batch["labels"][:, 1:]
    wanted = labels != IGNORED
    hidden = core.base_model(input_ids=batch["input_ids"], use_cache=False).last_hidden_state
    logits = core.get_output_embeddings()(hidden[:, :-1][wanted])
    each = torch.nn.functional.cross_entropy(logits.float(), labels[wanted], reduction="none")
    counts = wanted.sum(1).tolist()
    return [float(part.mean()) for part in each.split(counts)]


def _spread(batch: dict[str, torch.Tensor], wanted: torch.Tensor) -> torch.Tensor | None:
    """Each wanted token's weight; None where no weights are given."""
    weights = batch.get("weights")
    return None if weights is None else weights.unsqueeze(1).expand(wanted.shape)[wanted]


def _weighted(logits: torch.Tensor, labels: torch.Tensor, weights: torch.Tensor | None, tokens: int) -> torch.Tensor:
    each = torch.nn.functional.cross_entropy(logits.float(), labels, reduction="none")
    total: torch.Tensor = (each if weights is None else each * weights).sum()
    return total / tokens
