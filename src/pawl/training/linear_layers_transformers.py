"""The linear layers of a model by its architecture, where its weights' own names and shapes do not show them."""

from __future__ import annotations

from pathlib import Path

from pawl.errors import ModelFileError
from pawl.training.adapter_tensors import Linear


def architecture_layers(base_dir: Path) -> dict[str, Linear]:
    """The linear layers that transformers builds from the folder's config.json; nothing is loaded or allocated.

    For quantised weights, and for checkpoints whose names differ from the model's. ModelFileError where transformers
    does not know the architecture; code in the folder is never run.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    try:
        config = AutoConfig.from_pretrained(str(base_dir), trust_remote_code=False)
        if hasattr(config, "quantization_config"):
            del config.quantization_config
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
    except (OSError, ValueError, KeyError, RuntimeError) as e:
        raise ModelFileError(f"transformers cannot build the base model of {base_dir.name} ({e})") from e
    return {
        name: Linear(module.out_features, module.in_features)
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear)
    }
