"""A base model with an adapter on it, and the two as one model."""

from __future__ import annotations

import errno
import json
import shutil
from pathlib import Path
from typing import Any

from pawl.errors import ModelFileError, ResourceError, TrainingFailed
from pawl.training.base_model_transformers import safetensors_problem
from pawl.training.export_transformers import load
from pawl.training.run_folder import write_whole

# The base's own files beside its weights: tokenizer, template, how it generates.
_BESIDE = ("tokenizer", "special_tokens", "added_tokens", "chat_template", "vocab", "merges", "generation_config")


def with_adapter(base_dir: Path, adapter: Path) -> Any:
    """The base in float32 with the adapter beside its layers, not merged. ModelFileError where that fails."""
    from peft import PeftModel

    config = json.loads((base_dir / "config.json").read_text())
    if config.get("quantization_config"):
        raise ModelFileError(
            f"the base model {base_dir.name} is quantised: nothing can be merged into it exactly. Export the adapter "
            "(--to adapter), or train on the unquantised base"
        )
    base = load(base_dir)
    try:
        return PeftModel.from_pretrained(base, str(adapter)).eval()
    except (OSError, ValueError, KeyError, RuntimeError) as e:
        raise ModelFileError(f"the adapter {adapter.name} cannot be loaded on {base_dir.name} ({e})") from e


def write_merged(model: Any, base_dir: Path, target: Path, name: str, *, bfloat16: bool) -> None:
    """Merge in float32, write the sum with the base's tokenizer and template. The model is used up.

    `bfloat16`: rounded to it, else as it is. TrainingFailed where the sum is not finite, ResourceError where the disk
    is full.
    """
    import torch

    try:
        whole = model.merge_and_unload(safe_merge=True)
    except ValueError as e:  # peft's word for values that are not finite
        raise TrainingFailed(f"{name} cannot be merged ({e}); train it again") from e
    try:
        (whole.to(torch.bfloat16) if bfloat16 else whole).save_pretrained(str(target))
        config = json.loads((target / "config.json").read_text())
        write_whole(
            target / "config.json", json.dumps({**config, "_name_or_path": name}, indent=2, sort_keys=True).encode()
        )
        for path in sorted(base_dir.iterdir()):
            if path.is_file() and path.name.startswith(_BESIDE):
                shutil.copyfile(path, target / path.name)
    except OSError as e:
        if e.errno == errno.ENOSPC:
            raise ResourceError(f"the disk filled up while writing {target.name}; free space") from e
        raise
    for weights in target.glob("*.safetensors"):
        problem = safetensors_problem(weights)
        if problem:
            raise ModelFileError(f"the merged model was not written whole ({problem}); check the disk")
