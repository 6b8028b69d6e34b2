"""The model that is trained, by method: built on a base, and written as what vLLM serves.

LoRA: Hu et al. (arXiv 2106.09685), on all linear layers as in Dettmers et al. (QLoRA, arXiv 2305.14314, section 5).
rsLoRA: Kalajdzievski (arXiv 2312.03732). DoRA: Liu et al. (arXiv 2402.09353). AdaLoRA: see `adalora_peft`.
"""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pawl.errors import ModelFileError, ResourceError, TrainingFailed
from pawl.fleet.training import TrainingSpec
from pawl.training.adapter_tensors import header, layers_of
from pawl.training.base_model_transformers import base_name, safetensors_problem
from pawl.training.continuation import names_of, why_anew
from pawl.training.run_folder import WEIGHTS, write_whole

if TYPE_CHECKING:
    import torch


def best_dtype() -> torch.dtype:
    """bfloat16 where the processor computes in it, else float32: emulated, it would be slower."""
    import torch

    if torch.cuda.is_available():
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float32
    names = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    fast = any(getattr(torch.cpu, n)() for n in names if hasattr(torch.cpu, n))
    return torch.bfloat16 if fast else torch.float32


def build(base_dir: Path, spec: TrainingSpec, start_adapter: Path | None, steps: int) -> tuple[Any, torch.dtype]:
    """(the model with what is to be trained, the type it computes in), for a run of that many steps on the examples.

    What is trained stays in float32 (small updates would be rounded away in bfloat16); the frozen base is in the type
    it computes in, and for qlora in four bits. ModelFileError for a base or a start adapter that cannot be used,
    ResourceError where the method needs what this machine has not.
    """
    import torch
    from transformers import set_seed
    from transformers.utils import logging

    logging.disable_progress_bar()
    set_seed(spec.seed)
    dtype = best_dtype()
    base = _base(base_dir, spec, torch.float32 if spec.method == "full" else dtype)
    if spec.method == "full":
        return _placed(base, spec), dtype
    from peft import get_peft_model

    if start_adapter is None:
        return _placed(get_peft_model(base, _config(spec, steps)), spec), dtype
    return _placed(_continued(base, base_dir, spec, start_adapter), spec), dtype


def served(base_dir: Path, trained: Path) -> Any:
    """What a folder holds as it is served: the base in the type that this machine computes in, never in four bits, with
    the adapter on it, or the whole model there. ModelFileError where it cannot be loaded."""
    import torch
    from peft import PeftModel

    from pawl.training.quantised_base_transformers import load_base

    whole = not (trained / "adapter_config.json").exists()
    model = load_base(trained if whole else base_dir, best_dtype(), attn_implementation=_attention())
    try:
        model = model if whole else PeftModel.from_pretrained(model, str(trained))
    except (OSError, ValueError, KeyError, RuntimeError) as e:
        raise ModelFileError(f"what was trained in {trained.name} cannot be loaded ({e}); train it again") from e
    return model.to("cuda" if torch.cuda.is_available() else "cpu").eval()


def is_adapter(model: Any) -> bool:
    """Whether an adapter is trained, and not the whole model."""
    return hasattr(model, "peft_config")


def save(model: Any, base_dir: Path, target: Path) -> None:
    """Write what was trained to `target`: an adapter as vLLM loads it, or a whole model with its tokenizer.

    Written beside its place and moved there: it is whole or absent.
    """
    part = target.with_name(f".{target.name}.part")
    for stale in (part, target):
        shutil.rmtree(stale, ignore_errors=True)
    if is_adapter(model):
        _save_adapter(model, base_name(base_dir), part)
    else:
        _save_whole(model, base_dir, part)
    for weights in part.glob("*.safetensors"):
        problem = safetensors_problem(weights)
        if problem:
            raise TrainingFailed(f"the result was not written whole ({problem}); check the disk and run again")
    part.rename(target)


def merged(model: Any, base_dir: Path, target: Path) -> None:
    """The adapter folded into the base's weights, as a model of its own in bfloat16. The model is used up."""
    import torch

    whole = model.merge_and_unload(safe_merge=True) if is_adapter(model) else model
    save(whole.to(torch.bfloat16), base_dir, target)


def _attention() -> str:
    """On CPU plain attention on short sequences beats the fused kernel, whose backward pass is slow in bfloat16."""
    import torch

    return "sdpa" if torch.cuda.is_available() else "eager"


def _placed(model: Any, spec: TrainingSpec) -> Any:
    """On the device that computes, since more than the stages does: the first validation, what EWC holds.

    bitsandbytes has placed its four bits itself; shards are placed by what shards them.
    """
    from pawl.training.stage_transformers import processes, sharded

    return model if spec.method == "qlora" or sharded() else model.to(processes().device)


def _base(base_dir: Path, spec: TrainingSpec, dtype: torch.dtype) -> Any:
    from pawl.training.quantised_base_transformers import load_base

    how: dict[str, Any] = {"attn_implementation": _attention()}
    if spec.method == "qlora":
        how["quantization_config"] = _four_bits()
    base = load_base(base_dir, dtype, **how)
    if spec.method == "qlora":
        from peft import prepare_model_for_kbit_training

        base = prepare_model_for_kbit_training(base)
    return base


def _four_bits() -> Any:
    """NF4 with double quantisation (QLoRA, section 3)."""
    import torch
    from transformers import BitsAndBytesConfig
    from transformers.utils import is_bitsandbytes_available

    if not torch.cuda.is_available() or not is_bitsandbytes_available():
        missing = "no CUDA GPU" if not torch.cuda.is_available() else "no bitsandbytes"
        raise ResourceError(
            f"method qlora needs a CUDA GPU and bitsandbytes (requirements/gpu.txt); here is {missing}: "
            "set training.method: lora, or train on a GPU machine"
        )
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
    )


def _config(spec: TrainingSpec, steps: int) -> Any:
    from peft import LoraConfig

    from pawl.training import adalora_peft

    if spec.method == "adalora":
        return adalora_peft.config(spec, steps)
    targets = spec.target_modules
    return LoraConfig(
        r=spec.rank,
        lora_alpha=spec.alpha,
        lora_dropout=spec.dropout,
        use_rslora=spec.method == "rslora",
        use_dora=spec.method == "dora",
        target_modules=targets if isinstance(targets, str) else list(targets),
        task_type="CAUSAL_LM",
    )


def _continued(base: Any, base_dir: Path, spec: TrainingSpec, start: Path) -> Any:
    from peft import PeftModel

    from pawl.training.adapter_check import check_adapter

    check_adapter(start, base_dir, hot=False)
    other = why_anew(start, spec, base_dir)
    if other:
        raise ModelFileError(
            f"start adapter {start.name} has {other}: make the spec fit it, or set training.start: base"
        )
    try:
        model = PeftModel.from_pretrained(base, str(start), is_trainable=True)
    except (OSError, ValueError, KeyError, RuntimeError) as e:
        raise ModelFileError(
            f"start adapter {start} cannot be loaded on {base_dir.name} ({e}); set training.start: base"
        ) from e
    _rescale(model, spec)
    for module in model.modules():  # dropout is a matter of this run, not of the adapter
        for dropout in getattr(module, "lora_dropout", {}).values():
            if hasattr(dropout, "p"):
                dropout.p = spec.dropout
    return model


def _rescale(model: Any, spec: TrainingSpec) -> None:
    """The spec's alpha and scaling for an adapter that was trained, or merged, under others: it computes the same.

    Layers may have ranks and alphas of their own (an adapter from elsewhere): each is rescaled by its own rank, as peft
    will scale it when it loads the result, whose alpha is the same for all.
    """
    found = model.peft_config["default"]
    for module in model.modules():
        if "default" not in getattr(module, "lora_B", {}):
            continue
        rank = module.r["default"]
        scaling = spec.alpha / (math.sqrt(rank) if spec.method == "rslora" else rank)
        if module.scaling["default"] != scaling:
            module.lora_B["default"].weight.data *= module.scaling["default"] / scaling
        module.scaling["default"], module.lora_alpha["default"] = scaling, spec.alpha
    found.lora_alpha, found.use_rslora, found.alpha_pattern = spec.alpha, spec.method == "rslora", {}


def _save_adapter(model: Any, base: str, part: Path) -> None:
    from pawl.training import adalora_peft

    adaptive = model.peft_config["default"].peft_type == "ADALORA"
    if adaptive:
        import torch
        from peft import LoraConfig
        from safetensors.torch import save_file

        tensors, rank = adalora_peft.as_lora(model)
        part.mkdir(parents=True)
        save_file({k: v.to(torch.float32) for k, v in tensors.items()}, str(part / WEIGHTS), metadata={"format": "pt"})
        LoraConfig(
            r=rank, lora_alpha=rank, target_modules=[], task_type="CAUSAL_LM", inference_mode=True
        ).save_pretrained(str(part))
    else:
        model.save_pretrained(str(part), save_embedding_layers=False)
    (part / "README.md").unlink(missing_ok=True)  # peft's empty model card, with this machine's path in it
    config = json.loads((part / "adapter_config.json").read_text())
    config["base_model_name_or_path"] = base
    # What it sits on and nothing else: the spec's pattern means something to peft alone. Sorted: the same bytes.
    layers = layers_of(header(part / WEIGHTS))
    config["target_modules"] = names_of(layers, [n for n, _ in model.get_base_model().named_modules()])
    write_whole(part / "adapter_config.json", json.dumps(config, indent=2, sort_keys=True).encode())


def _save_whole(model: Any, base_dir: Path, part: Path) -> None:
    model.save_pretrained(str(part))
    config = json.loads((part / "config.json").read_text())
    config["_name_or_path"] = base_name(base_dir)
    write_whole(part / "config.json", json.dumps(config, indent=2, sort_keys=True).encode())
    for path in base_dir.iterdir():  # tokenizer and chat template as they are, byte by byte
        if path.name.startswith(("tokenizer", "special_tokens", "chat_template", "vocab", "merges", "added_tokens")):
            shutil.copyfile(path, part / path.name)
