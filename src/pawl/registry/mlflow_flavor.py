"""Makes a version's folder one that `mlflow` alone can load: an MLmodel file of its transformers flavor.

The base model's weights are named and not stored (MLflow's `base_model_path`, for PEFT models): an adapter of 20 MB
stays one. Where the name is a Hugging Face id, MLflow finds it there or in the cache; else whoever loads it says where
it is: `mlflow.transformers.load_model("models:/AGENT@champion", base_model_path=...)`.
"""

from __future__ import annotations

import json
import shutil
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed
from pathlib import Path
from typing import Any

from pawl.registry.port import Packing

TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.json",
             "merges.txt", "tokenizer.model", "chat_template.jinja")  # fmt: skip
PACKAGES = ("mlflow", "transformers", "torch", "peft", "accelerate", "safetensors", "tokenizers")


def write(folder: Path, packing: Packing) -> None:
    """Write MLmodel, requirements.txt and the base's tokenizer into `folder`."""
    from mlflow.models import Model, ModelSignature
    from mlflow.types.schema import ColSpec, DataType, ParamSchema, ParamSpec, Schema

    kept = folder / "components" / "tokenizer"
    kept.mkdir(parents=True)
    for name in TOKENIZER:
        if (packing.base_dir / name).is_file():
            shutil.copyfile(packing.base_dir / name, kept / name)
    (folder / "requirements.txt").write_text("\n".join(_pinned()) + "\n")
    text = Schema([ColSpec(DataType.string, "prompt")])
    tokens = ParamSchema([ParamSpec("max_new_tokens", DataType.long, packing.max_tokens)])
    signature = ModelSignature(text, Schema([ColSpec(DataType.string)]), tokens)
    made = Model(signature=signature)
    made.add_flavor("transformers", **flavor(packing, _architecture(packing.base_dir)))
    made.save(str(folder / "MLmodel"))


def flavor(packing: Packing, architecture: str) -> dict[str, Any]:
    """The flavor's keys (pure). The adapter lies at the folder's root, where vLLM and peft look for it too."""
    known: dict[str, Any] = {
        "task": "text-generation",
        "instance_type": "TextGenerationPipeline",
        "pipeline_model_type": architecture,
        "source_model_name": packing.base_name,
        "components": ["tokenizer"],
        "tokenizer_type": "AutoTokenizer",
    }
    if packing.whole:
        return known | {"model_binary": "."}
    return known | {"local_base_model_path": packing.base_name, "peft_adaptor": "."}


def _architecture(base_dir: Path) -> str:
    named = json.loads((base_dir / "config.json").read_text()).get("architectures") or ["AutoModelForCausalLM"]
    return str(named[0])


def _pinned() -> list[str]:
    found = []
    for name in PACKAGES:
        try:
            found.append(f"{name}=={installed(name).partition('+')[0]}")  # a local build cannot be asked for
        except PackageNotFoundError:
            continue
    return found
