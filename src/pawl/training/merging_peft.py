"""Several adapters of one base model as one plain LoRA that vLLM loads.

**Linear** averages what the layers add, W = sum_i w_i s_i B_i A_i, and not A and B by themselves: peft's `linear` sums
sqrt(w_i s_i) A_i and sqrt(w_i s_i) B_i, whose product holds B_1 A_2 and B_2 A_1 too, which no adapter ever computed
(its documentation calls it a very rough approximation; two copies of one function whose factors differ by a rotation
already come out wrong). The sum is exact as a concatenation, [w_1 s_1 B_1, w_2 s_2 B_2] [A_1; A_2], of the ranks' sum
(peft's `cat`); it is brought back to the rank that the servers were started for by the nearest matrix of that rank, a
truncated singular value decomposition (Eckart and Young 1936). Through two thin QR decompositions that costs no more
than the small core, and what it loses is known from the singular values that fall off, and reported.

**TIES** (Yadav et al., arXiv 2306.01708, section 3): of each adapter's change the `density` greatest values stay, each
place elects the sign that weighs more, and the mean is over those who agree. It is about single weights of the model,
so it is done on the products BA; on A and B apart (peft's `ties`) it would compare coordinates that mean nothing.
peft's mean divides weighted values by how many agree, so that with weights that sum to one an adapter merged with its
copy comes out at half its size; here it is the weighted mean. The result is of full rank: the truncation loses more.
"""

from __future__ import annotations

import json
import math
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from pawl.errors import ModelFileError
from pawl.training.base_model_transformers import safetensors_problem
from pawl.training.run_folder import WEIGHTS, write_whole

CONFIG = "adapter_config.json"
_A, _B = ".lora_A.weight", ".lora_B.weight"
# Anything that makes a layer's change another one than s B A on a plain linear layer.
_OTHER = ("use_dora", "modules_to_save", "trainable_token_indices", "fan_in_fan_out", "layer_replication", "lora_bias",
          "megatron_config", "target_parameters")  # fmt: skip
_SMALL = 1024  # up to that side a matrix is decomposed exactly; a larger one by random projection
_MORE, _ROUNDS = 16, 6  # extra directions and power iterations (Halko et al., arXiv 0909.4061, algorithm 4.4)


class Adapter(NamedTuple):
    """One that is merged."""

    folder: Path
    config: dict[str, Any]
    factors: dict[str, tuple[torch.Tensor, torch.Tensor]]  # layer -> B times the scaling (out, r), A (r, in); float32


class Merged(NamedTuple):
    """What merging lost: the share of the change's Frobenius norm that did not fit into the rank."""

    rank: int
    layers: int
    error: float  # over all layers together
    worst: float  # of one layer
    worst_layer: str


def merge_adapters(
    folders: Sequence[Path],
    weights: Sequence[float],
    out: Path,
    *,
    method: Literal["linear", "ties"],
    density: float,
    rank: int,
) -> str:
    """Merge into the folder `out`, which may be one of `folders`; returns what a reader must know of it.

    `weights` are of the function that each adapter adds, and should sum to 1. The result has rank `rank` in every
    layer, alpha = rank. ModelFileError where they do not belong together, or are no plain LoRAs.
    """
    found = merge(folders, weights, out, method=method, density=density, rank=rank)
    shares = ", ".join(f"{w:.2f} {f.name}" for f, w in zip(folders, weights, strict=True))
    return (
        f"merged ({method}): {shares}; bringing it back to rank {found.rank} lost {100 * found.error:.2g} % of the "
        f"change, at worst {100 * found.worst:.2g} % in {found.worst_layer}"
    )


def merge(
    folders: Sequence[Path],
    weights: Sequence[float],
    out: Path,
    *,
    method: Literal["linear", "ties"],
    density: float,
    rank: int,
) -> Merged:
    """As `merge_adapters`, with the figures."""
    if not folders or len(folders) != len(weights):
        raise ModelFileError(f"{len(folders)} adapters and {len(weights)} weights: each adapter needs one weight")
    adapters = [load(f) for f in folders]
    _demand_one_base(adapters)
    layers = sorted(set().union(*(a.factors for a in adapters)))
    tensors: dict[str, torch.Tensor] = {}
    lost, whole, worst, worst_layer = 0.0, 0.0, 0.0, layers[0]
    for layer in layers:
        # A layer that an adapter has not is one that it does not change: zeros in the sum, and no say in TIES.
        mine = [(w, a.factors[layer]) for a, w in zip(adapters, weights, strict=True) if layer in a.factors]
        b, a, gone, size = _linear(mine, rank) if method == "linear" else _ties(mine, density, rank)
        tensors[layer + _A], tensors[layer + _B] = a.contiguous(), b.contiguous()
        lost, whole = lost + gone, whole + size
        if size and gone / size > worst:
            worst, worst_layer = gone / size, layer
    config = _config(adapters, rank)
    _write(out, tensors, config)
    name = worst_layer.removeprefix("base_model.model.")
    return Merged(rank, len(layers), math.sqrt(lost / whole) if whole else 0.0, math.sqrt(worst), name)


def load(folder: Path) -> Adapter:
    """A plain LoRA's factors with its scaling folded into B. ModelFileError where it is none, or is not whole."""
    try:
        problem = safetensors_problem(folder / WEIGHTS)
        if problem:
            raise ModelFileError(f"adapter {folder} cannot be merged: {problem}; fetch it from the registry again")
        config = json.loads((folder / CONFIG).read_text())
        tensors = load_file(str(folder / WEIGHTS))
    except (OSError, ValueError, SafetensorError) as e:
        raise ModelFileError(f"adapter {folder} cannot be read ({e}); fetch it from the registry again") from e
    other = [name for name in _OTHER if config.get(name)]
    if config.get("peft_type") != "LORA" or config.get("bias", "none") != "none":
        other.append(f"type {config.get('peft_type')}, bias {config.get('bias')}")
    strange = sorted(n for n in tensors if not n.endswith((_A, _B)))
    if other or strange:
        raise ModelFileError(
            f"adapter {folder.name} is no plain LoRA of linear layers ({', '.join([*other, *strange[:3]])}): it cannot "
            "be merged; leave it out of training.merge.others"
        )
    factors = {}
    for name in tensors:
        layer = name.removesuffix(_A)
        if layer == name:
            continue
        a, b = tensors[name].float(), tensors.get(layer + _B)
        if b is None or b.shape[1] != a.shape[0]:
            raise ModelFileError(f"adapter {folder.name}: {layer} has no fitting pair of A and B; train it again")
        factors[layer] = (b.float() * _scaling(config, layer, a.shape[0]), a)
    if not factors or len(tensors) != 2 * len(factors):
        raise ModelFileError(f"adapter {folder.name} holds no whole LoRA layers; train it again")
    return Adapter(folder, config, factors)


def _scaling(config: dict[str, Any], layer: str, rank: int) -> float:
    """As peft: patterns go by the end of the layer's name, the first match counts."""
    name = layer.removeprefix("base_model.model.")
    patterns: dict[str, float] = config.get("alpha_pattern") or {}
    alpha = next((v for k, v in patterns.items() if re.match(rf"(.*\.)?({k})$", name)), config["lora_alpha"])
    return float(alpha) / (math.sqrt(rank) if config.get("use_rslora") else rank)


def _demand_one_base(adapters: Sequence[Adapter]) -> None:
    bases = {str(a.config.get("base_model_name_or_path")): a.folder.name for a in adapters}
    if len(bases) > 1:
        told = "; ".join(f"{name} of {base}" for base, name in bases.items())
        raise ModelFileError(f"adapters of different base models cannot be merged: {told}. Leave one out")
    first = adapters[0].factors
    for a in adapters[1:]:
        for layer in a.factors.keys() & first.keys():
            (b1, a1), (b2, a2) = first[layer], a.factors[layer]
            if b1.shape[0] != b2.shape[0] or a1.shape[1] != a2.shape[1]:
                raise ModelFileError(f"{a.folder.name} and {adapters[0].folder.name} differ in the shape of {layer}")


Pairs = Sequence[tuple[float, tuple[torch.Tensor, torch.Tensor]]]
Cut = tuple[torch.Tensor, torch.Tensor, float, float]  # B, A, squared norm of what was cut off, and of the whole


def _linear(pairs: Pairs, rank: int) -> Cut:
    b = torch.cat([w * b for w, (b, _) in pairs], dim=1).double()
    a = torch.cat([a for _, (_, a) in pairs], dim=0).double()
    qb, rb = torch.linalg.qr(b)
    qa, ra = torch.linalg.qr(a.T)
    u, s, vh = torch.linalg.svd(rb @ ra.T, full_matrices=False)
    squares = s**2
    return *_factors(qb @ u, s, vh @ qa.T, rank), float(squares[rank:].sum()), float(squares.sum())


def _ties(pairs: Pairs, density: float, rank: int, exact_up_to: int = _SMALL) -> Cut:
    changes = [(w, _trimmed(b @ a, density)) for w, (b, a) in pairs]
    elected = torch.sign(sum((w * d for w, d in changes), torch.zeros(())))
    top, agreed = torch.zeros_like(elected), torch.zeros_like(elected)
    for w, d in changes:
        agrees = (torch.sign(d) == elected) & (d != 0)
        top += torch.where(agrees, w * d, 0.0)
        agreed += torch.where(agrees, w, 0.0)
    merged = torch.where(agreed > 0, top / agreed.clamp(min=1e-12), 0.0)
    if min(merged.shape) <= exact_up_to:
        u, s, vh = torch.linalg.svd(merged, full_matrices=False)
    else:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)  # the same adapters, the same result
            u, s, v = torch.svd_lowrank(merged, q=min(rank + _MORE, *merged.shape), niter=_ROUNDS)
        vh = v.T
    b, a = _factors(u, s, vh, rank)
    return b, a, float(((merged - b @ a).double() ** 2).sum()), float((merged.double() ** 2).sum())


def _trimmed(change: torch.Tensor, density: float) -> torch.Tensor:
    keep = max(1, math.ceil(density * change.numel()))
    if keep >= change.numel():
        return change
    least = change.abs().flatten().kthvalue(change.numel() - keep + 1).values
    return torch.where(change.abs() >= least, change, 0.0)


def _factors(u: torch.Tensor, s: torch.Tensor, vh: torch.Tensor, rank: int) -> tuple[torch.Tensor, torch.Tensor]:
    """B and A of exactly that rank, the singular values shared evenly; short ones are filled with zeros."""
    root = s[:rank].sqrt()
    b, a = u[:, :rank] * root, root[:, None] * vh[:rank]
    missing = rank - b.shape[1]
    if missing > 0:
        b = torch.nn.functional.pad(b, (0, missing))
        a = torch.nn.functional.pad(a, (0, 0, 0, missing))
    return b.float(), a.float()


def _config(adapters: Sequence[Adapter], rank: int) -> dict[str, Any]:
    """The first one's, with alpha = rank so that the scaling is 1, and every layer that any of them changes."""
    layers = {layer.removeprefix("base_model.model.") for a in adapters for layer in a.factors}
    partial = any(
        a.config.get("layers_to_transform")
        or a.config.get("exclude_modules")
        or any("." in name for name in a.config.get("target_modules") or ())  # whole names: not every such layer
        for a in adapters
    )
    targets = layers if partial else {layer.rpartition(".")[2] for layer in layers}
    changed = {
        "r": rank,
        "lora_alpha": rank,
        "rank_pattern": {},
        "alpha_pattern": {},
        "use_rslora": False,
        "lora_dropout": 0.0,
        "init_lora_weights": True,
        "layers_to_transform": None,
        "layers_pattern": None,
        "exclude_modules": None,
        "inference_mode": True,
        "target_modules": sorted(targets),
    }
    return {**adapters[0].config, **changed}


def _write(out: Path, tensors: dict[str, torch.Tensor], config: dict[str, Any]) -> None:
    """Beside its place, then moved there. Other files that lie in `out` (a card) are not taken along."""
    part = out.with_name(f".{out.name}.merged")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    save_file(tensors, str(part / WEIGHTS), metadata={"format": "pt"})
    write_whole(part / CONFIG, json.dumps(config, indent=2, sort_keys=True).encode())
    if out.exists():
        shutil.rmtree(out)
    part.rename(out)
