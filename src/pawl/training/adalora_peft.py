"""AdaLoRA: ranks that go where they are needed, and the exact way back to a plain LoRA that vLLM serves.

Method: Zhang et al., "Adaptive Budget Allocation for Parameter-Efficient Fine-Tuning" (arXiv 2303.10512). A layer's
change is B diag(E) A; entries of E with little importance are set to zero while the budget falls (section 3.2, 3.3).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import load_file, save_file

from pawl.fleet.training import AdaLoraSpec, TrainingSpec

_ALLOCATOR = "allocator.safetensors"
_PATTERN = "rank_pattern.json"
_KEPT = ("ipt", "exp_avg_ipt", "exp_avg_unc")


class Phases(NamedTuple):
    """Steps (1-based) between which the rank budget falls, and how often it is looked at."""

    total: int
    start: int  # ranks are untouched up to here (t_init)
    final: int  # so many last steps keep the final ranks (t_final)
    every: int


def phases(spec: AdaLoraSpec, steps: int) -> Phases:
    """The schedule for a run of that many steps. At least one step lies between the phases, where the run has three."""
    start = int(steps * spec.start_share)
    final = max(1, round(steps * spec.final_share))
    if start + final >= steps:
        start, final = 0, max(0, steps - 2)
    falling = max(1, steps - start - final)
    return Phases(steps, start, final, min(spec.every, falling))


def config(spec: TrainingSpec, steps: int) -> Any:
    """peft's configuration of the method for a run of that many steps."""
    from peft import AdaLoraConfig

    plan = phases(spec.adalora, steps)
    targets = spec.target_modules
    return AdaLoraConfig(
        init_r=spec.adalora.initial_rank,
        target_r=spec.rank,
        tinit=plan.start,
        tfinal=plan.final,
        deltaT=plan.every,
        total_step=plan.total,
        beta1=spec.adalora.smoothing,
        beta2=spec.adalora.smoothing,
        orth_reg_weight=spec.adalora.orthogonality,
        lora_alpha=spec.alpha,
        lora_dropout=spec.dropout,
        target_modules=targets if isinstance(targets, str) else list(targets),
        task_type="CAUSAL_LM",
    )


def orthogonality(model: Any) -> torch.Tensor:
    """Mean Frobenius norm of A A' - I and B' B - I over the layers (equation 4), times its weight. Differentiable."""
    losses = []
    for name, p in model.named_parameters():
        if p.requires_grad and ("lora_A" in name or "lora_B" in name):
            product = p @ p.T if "lora_A" in name else p.T @ p
            losses.append(torch.linalg.matrix_norm(product - torch.eye(len(product), device=p.device)))
    weight: float = _config(model).orth_reg_weight
    return weight * torch.stack(losses).mean()


class Ranks:
    """The rank budget of a run: moved on after each step, kept in checkpoints."""

    def __init__(self, model: Any) -> None:
        self._model = model

    def after_step(self, step: int) -> None:
        """`step` is 1-based. To be called between the optimiser's step and the clearing of gradients."""
        self._model.base_model.update_and_allocate(step)

    def left(self) -> dict[str, int]:
        """Layer -> rank that is left of it."""
        return {name: int((e != 0).sum()) for name, e in _values(self._model).items()}

    def importance(self) -> dict[str, float]:
        """Layer -> mean smoothed importance of its singular values (equation 5); empty where none is known yet."""
        allocator = self._model.base_model.rankallocator
        found = {}
        for name, value in allocator.exp_avg_ipt.items():
            if "lora_E" in name:
                found[_layer(name)] = float((value * allocator.exp_avg_unc[name]).mean())
        return found

    def save(self, folder: Path) -> None:
        """What a resumed run needs beside the weights: importance so far, and which ranks are left."""
        allocator = self._model.base_model.rankallocator
        tensors = {f"{kind}|{n}": t.contiguous() for kind in _KEPT for n, t in getattr(allocator, kind).items()}
        save_file(tensors, str(folder / _ALLOCATOR))
        (folder / _PATTERN).write_text(json.dumps(_config(self._model).rank_pattern or {}))

    def load(self, folder: Path) -> None:
        """The state that `save` wrote, each tensor where the parameter of its name lies."""
        allocator = self._model.base_model.rankallocator
        where = {n: p.device for n, p in self._model.base_model.model.named_parameters()}
        for kind in _KEPT:
            getattr(allocator, kind).clear()
        for key, tensor in load_file(str(folder / _ALLOCATOR)).items():
            kind, _, name = key.partition("|")
            getattr(allocator, kind)[name] = tensor.to(where[name])
        _config(self._model).rank_pattern = json.loads((folder / _PATTERN).read_text()) or None


def as_lora(model: Any) -> tuple[dict[str, torch.Tensor], int]:
    """The trained AdaLoRA as tensors of a plain LoRA with lora_alpha = r, and that r.

    Exact: A' = A * E * scaling / (ranks + 1e-5), as peft's forward pass computes it; rows whose E is zero are dropped,
    and every layer is padded with zeros to the largest rank that is left, since vLLM wants one rank.
    """
    layers = {}
    for name, module in model.named_modules():
        if "default" in getattr(module, "lora_E", {}):
            e, a, b = (getattr(module, f"lora_{k}")["default"].detach().float() for k in "EAB")
            scale = float(module.scaling["default"]) / (module.ranknum["default"].item() + 1e-5)
            kept = (e != 0).flatten()
            layers[name] = ((a * e * scale)[kept], b[:, kept])
    rank = max([1, *(len(a) for a, _ in layers.values())])
    found = {}
    for name, (a, b) in layers.items():
        more = rank - len(a)
        found[f"{name}.lora_A.weight"] = torch.nn.functional.pad(a, (0, 0, 0, more)).contiguous()
        found[f"{name}.lora_B.weight"] = torch.nn.functional.pad(b, (0, more)).contiguous()
    return found, rank


def _config(model: Any) -> Any:
    return model.peft_config["default"]


def _values(model: Any) -> dict[str, torch.Tensor]:
    return {_layer(n): p.detach() for n, p in model.named_parameters() if "lora_E" in n}


def _layer(parameter: str) -> str:
    return parameter.removeprefix("base_model.model.").partition(".lora_E")[0]
