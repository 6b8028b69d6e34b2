"""A base model of two linear layers and an adapter that fits it: real files, written without torch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

LAYERS = {"model.layers.0.self_attn.q_proj": (6, 8), "model.layers.0.mlp.down_proj": (8, 12)}
CONFIG: dict[str, Any] = {
    "peft_type": "LORA",
    "task_type": "CAUSAL_LM",
    "base_model_name_or_path": "tiny-base",
    "r": 2,
    "lora_alpha": 4,
    "target_modules": ["down_proj", "q_proj"],
    "auto_mapping": None,
    "modules_to_save": None,
}


def make_base(folder: Path) -> Path:
    """Config, tokenizer and weights, as far as a check looks at them."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text('{"model_type": "llama", "_name_or_path": "tiny-base"}')
    (folder / "tokenizer.json").write_text("{}")
    weights = {f"{name}.weight": np.ones(shape, np.float32) for name, shape in LAYERS.items()}
    save_file({**weights, "model.embed_tokens.weight": np.ones((4, 8), np.float32)}, folder / "model.safetensors")
    return folder


def tensors(value: float = 0.5, rank: int = 2) -> dict[str, Any]:
    """The LoRA weights of both layers, all of that value."""
    found = {}
    for name, (outputs, inputs) in LAYERS.items():
        found[f"base_model.model.{name}.lora_A.weight"] = np.full((rank, inputs), value, np.float32)
        found[f"base_model.model.{name}.lora_B.weight"] = np.full((outputs, rank), value, np.float32)
    return found


def make_adapter(folder: Path, weights: dict[str, Any] | None = None, **config: Any) -> Path:
    """An adapter's folder; `config` changes keys of its config."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "adapter_config.json").write_text(json.dumps({**CONFIG, **config}))
    save_file(tensors() if weights is None else weights, folder / "adapter_model.safetensors")
    return folder
