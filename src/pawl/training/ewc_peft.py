"""Elastic weight consolidation: what the champion's adapter knows is expensive to change.

Kirkpatrick et al., "Overcoming catastrophic forgetting in neural networks" (arXiv 1612.00796), equation 3: to the loss
is added  lambda / 2 * sum_i F_i (theta_i - theta*_i)^2,  theta* being the champion's weights and F the diagonal of the
Fisher information there, over earlier examples.

**Which Fisher.** The empirical one (gradients at the recorded answers, not at answers drawn from the model): the mean
over examples of the squared gradient of an example's *summed* completion loss. Summed and not averaged, because it is
the log-likelihood of a whole answer whose information is wanted. The scores of an answer's tokens are uncorrelated
under the model, so the square of their sum estimates the sum of their squares: each token counts once, as in the
training loss. The empirical Fisher shrinks where an answer is fitted well (Kunstner et al., arXiv 1905.12558, section
4); what it then says is which weights matter more than others, and only that is used.

**Scale.** F is divided by its mean over all of the adapter's weights, so that `strength` means the same for any length
of answers, number of examples, and fit of the champion. It does depend on how far training moves the weights.

**A and B.** What a LoRA layer computes depends on the product BA alone, and the same product has many pairs (cA, B/c).
The penalty is still sound where it is used: training goes on in the same coordinates, and to first order the product
changes by B* dA + dB A*, which the gradients of A and B see through the chain rule. Not seen are the second order,
dB dA, and the cross terms between A and B, as EWC sees none between any two weights; and moving along (cA, B/c) costs
something though it changes nothing. At a fresh adapter (B = 0) all gradients of A are zero, so that A could move for
nothing: the anchor belongs at an adapter that has learnt, which is what the spec demands.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from pawl.errors import ModelFileError, NotEnoughData, TrainingFailed
from pawl.training.chat_format_transformers import Encoded, collate
from pawl.training.losses_torch import completion_loss
from pawl.training.run_folder import write_whole

_FISHER, _WEIGHTS, _ABOUT = "fisher.", "weights.", "pawl"
_WRAPPER = "module."  # what DistributedDataParallel puts before a model's own names


class Anchor(NamedTuple):
    """What holds the adapter. Both dicts are float32, by parameter name, of the parameters' shapes."""

    fisher: dict[str, torch.Tensor]  # its mean over all entries is 1
    weights: dict[str, torch.Tensor]  # theta*
    examples: int  # that the Fisher diagonal is from
    mean: float  # of the Fisher diagonal before it was divided by it, in squared nats an answer

    def penalty(self, model: Any, strength: float) -> torch.Tensor:
        """strength / 2 * sum F (theta - theta*)^2, a differentiable scalar. ModelFileError as `add_gradients`."""
        total = None
        for name, parameter in self._matched(model):
            moved = parameter.float() - self.weights[name]
            part = (self.fisher[name] * moved * moved).sum()
            total = part if total is None else total + part
        return (strength / 2) * (torch.zeros(()) if total is None else total)

    def add_gradients(self, model: Any, strength: float) -> None:
        """Add the penalty's gradient to every parameter's `.grad`, in place: no graph, one pass over the adapter.

        Once an optimiser step, after the last backward pass of its batch and before clipping. ModelFileError where the
        anchor is of another model.
        """
        for name, parameter in self._matched(model):
            moved = parameter.detach().float() - self.weights[name]
            pull = (self.fisher[name] * moved).mul_(strength)
            if parameter.grad is None:
                parameter.grad = pull.to(parameter.dtype)
            else:
                parameter.grad += pull.to(parameter.grad.dtype)

    def save(self, path: Path) -> None:
        """Write it as safetensors, whole or not at all."""
        tensors = {_FISHER + n: t.cpu().contiguous() for n, t in self.fisher.items()}
        tensors |= {_WEIGHTS + n: t.cpu().contiguous() for n, t in self.weights.items()}
        about = {"examples": self.examples, "mean": self.mean}
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, save(tensors, metadata={_ABOUT: json.dumps(about)}))

    def _matched(self, model: Any) -> list[tuple[str, torch.nn.Parameter]]:
        found = trained(model)
        shapes = {n: tuple(p.shape) for n, p in found.items()}
        if shapes != {n: tuple(t.shape) for n, t in self.weights.items()}:
            raise ModelFileError(
                "the anchor of elastic weight consolidation is of another adapter (layers or rank differ): delete it "
                "and run again, or leave training.ewc out"
            )
        return list(found.items())


def trained(model: Any) -> dict[str, torch.nn.Parameter]:
    """What training changes, by the name that it has without wrappers."""
    return {n.removeprefix(_WRAPPER): p for n, p in model.named_parameters() if p.requires_grad}


def anchor(
    model: Any,
    encoded: Sequence[Encoded],
    *,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
) -> Anchor:
    """Hold the model where it is now, by the Fisher diagonal over `encoded` (earlier examples; their weights do not
    count). `dtype`: what the model computes in (bfloat16 means autocast).

    One backward pass an example: it costs about what one epoch over the examples does. Gradients of the model are
    gone afterwards. NotEnoughData without examples, TrainingFailed where a gradient is not a number.
    """
    if not encoded:
        raise NotEnoughData(
            "elastic weight consolidation has no earlier example to go by: set data.replay_share, or leave "
            "training.ewc out in the agent's first weeks"
        )
    found = trained(model)
    if not found:
        raise TrainingFailed("elastic weight consolidation found nothing to hold: no parameter of the model is trained")
    where = torch.device(device) if device is not None else next(iter(found.values())).device
    squares = {n: torch.zeros_like(p, dtype=torch.float32) for n, p in found.items()}
    training = model.training
    model.eval()  # the information is the model's own, without dropout
    try:
        for e in encoded:
            model.zero_grad(set_to_none=True)
            batch = collate([Encoded(e.input_ids, e.labels)], pad=0)
            batch = {k: v.to(where) for k, v in batch.items()}
            with torch.autocast(where.type, torch.bfloat16, enabled=dtype == torch.bfloat16):
                loss = completion_loss(model, batch, tokens=1)
            loss.backward()
            for n, p in found.items():
                if p.grad is not None:
                    squares[n].addcmul_(p.grad.float(), p.grad.float())
    finally:
        model.zero_grad(set_to_none=True)
        model.train(training)
    entries = sum(s.numel() for s in squares.values())
    mean = sum(float(s.double().sum()) for s in squares.values()) / (entries * len(encoded))
    if not 0 <= mean < float("inf"):
        raise TrainingFailed(
            "the Fisher information of the champion's adapter is not a number: look for broken examples in its earlier "
            "datasets, or leave training.ewc out"
        )
    scale = 1.0 / (mean * len(encoded)) if mean else 0.0
    return Anchor(
        fisher={n: s.mul_(scale) for n, s in squares.items()},
        weights={n: p.detach().float().clone() for n, p in found.items()},
        examples=len(encoded),
        mean=mean,
    )


def kept_anchor(
    path: Path,
    model: Any,
    encoded: Sequence[Encoded],
    *,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
) -> Anchor:
    """The anchor in that file, or a new one, which is written there: a resumed run is held where the first attempt was.

    A file that is not whole, or of another adapter, is made anew.
    """
    if path.exists():
        try:
            found = load(path, device=device or next(iter(trained(model).values())).device)
            found._matched(model)
            return found
        except ModelFileError:
            path.unlink()
    made = anchor(model, encoded, device=device, dtype=dtype)
    made.save(path)
    return made


def load(path: Path, *, device: torch.device | str = "cpu") -> Anchor:
    """A saved anchor. ModelFileError where it is not whole."""
    try:
        with safe_open(str(path), framework="pt", device=str(device)) as file:
            about = json.loads((file.metadata() or {})[_ABOUT])
            tensors = {n: file.get_tensor(n) for n in file.keys()}  # noqa: SIM118 - not a dict
        fisher = {n.removeprefix(_FISHER): t for n, t in tensors.items() if n.startswith(_FISHER)}
        weights = {n.removeprefix(_WEIGHTS): t for n, t in tensors.items() if n.startswith(_WEIGHTS)}
        if fisher.keys() != weights.keys():
            raise KeyError("half of it is missing")
        return Anchor(fisher, weights, int(about["examples"]), float(about["mean"]))
    except (OSError, SafetensorError, KeyError, ValueError, TypeError) as e:
        raise ModelFileError(f"{path} holds no anchor of elastic weight consolidation ({e}); delete it") from e
