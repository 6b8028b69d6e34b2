"""What only the real tokenizer, the real model and the real device can tell of a training to come."""

from __future__ import annotations

import json
import random
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from pawl.curation import dataset as datasets
from pawl.curation.dataset import DatasetVersion, Example
from pawl.errors import ModelFileError
from pawl.fleet.training import TrainingSpec
from pawl.training.adapter_tensors import header, linear_layers, parameters
from pawl.training.machine import Gpu, Machine, machine
from pawl.training.plan import Shape, shape_of
from pawl.training.plan_report import Speed

SAMPLE = 2_000  # examples that are read with the tokenizer
_STEPS = 5  # that are timed; the first of them warms up


class Lengths(NamedTuple):
    """Of a sample of the examples."""

    raw: list[int]  # tokens of each by itself
    kept: list[tuple[int, int]]  # (tokens, completion tokens) of what is left after the rule for long ones
    long: int


def here(home: Path) -> Machine:
    """This machine, with its GPU where torch sees one."""
    import torch

    from pawl.training.models_peft import best_dtype

    seen = msgspec.structs.replace(machine(home), half=best_dtype() == torch.bfloat16)
    if not torch.cuda.is_available():
        return seen
    free, total = torch.cuda.mem_get_info()
    name, count = torch.cuda.get_device_name(), torch.cuda.device_count()
    return msgspec.structs.replace(seen, gpu=Gpu(name=name, count=count, free=free, total=total))


def portion(seen: Machine) -> int | None:
    """Tokens of a batch that training takes at once; None: all of it."""
    from pawl.training.losses_torch import PORTION

    return None if seen.gpu else PORTION


def look(source: str, models_dir: Path) -> Path:
    """A folder with config.json, tokenizer and card of a Hugging Face model: what a plan needs, without its weights.

    ModelFileError where the Hub does not give them.
    """
    from huggingface_hub import snapshot_download

    target = models_dir / f".plan-{source.replace('/', '--')}"
    files = ["config.json", "tokenizer*", "special_tokens_map.json", "*.jinja", "vocab.json", "merges.txt", "README.md"]
    try:
        target.mkdir(parents=True, exist_ok=True)
        snapshot_download(source, local_dir=str(target), allow_patterns=files)
    except (OSError, ValueError) as e:  # huggingface_hub's HTTP errors are OSErrors too
        why = (str(e).strip() or type(e).__name__).splitlines()[0]
        raise ModelFileError(
            f"the config of base model {source!r} could not be fetched ({why}); check the id and the network, set "
            "HF_TOKEN for a gated model, or name a local folder in fleet.yaml"
        ) from e
    return target


def shape_in(folder: Path) -> Shape:
    """From the folder's config.json and its weights' headers, or, without weights, from the architecture alone.

    ModelFileError where the model is not one whose memory can be counted.
    """
    try:
        config = json.loads((folder / "config.json").read_text())
        weights = sorted(folder.glob("*.safetensors"))
        if weights and "quantization_config" not in config:
            return shape_of(config, linear_layers(folder), parameters(folder))
        from pawl.training.linear_layers_transformers import architecture_layers

        layers = architecture_layers(folder)
        stored = sum(t.end - t.start for p in weights for t in header(p).values()) if weights else None
        return shape_of(config, layers, _parameters(folder), stored)
    except (OSError, ValueError, KeyError, TypeError) as e:
        raise ModelFileError(
            f"{folder.name} has no config.json by which memory can be counted ({type(e).__name__}: {e}); "
            "train with few examples and read the peak, or take another model"
        ) from e


def _parameters(folder: Path) -> int:
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.from_pretrained(str(folder), trust_remote_code=False)
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
    model.tie_weights()
    return sum(p.numel() for p in model.parameters())


def lengths_of(dataset: DatasetVersion, spec: TrainingSpec, folder: Path, most: int = SAMPLE) -> Lengths:
    """Tokens of the training examples, of a random sample (the same each time) where there are more than `most`."""
    from pawl.training.chat_format_transformers import ChatFormat, fit

    form = ChatFormat(folder)
    encoded = [form.encode(e) for e in _sample(dataset.train, most, dataset.fingerprint)]
    fitted = fit(encoded, spec.max_tokens, spec.long)
    kept = [(len(e.input_ids), e.completion_tokens) for e in fitted.encoded]
    return Lengths([len(e.input_ids) for e in encoded], kept, fitted.dropped + fitted.truncated + fitted.split)


def measured(dataset: DatasetVersion, spec: TrainingSpec, folder: Path, start: Path | None = None) -> Speed:
    """The speed of a few real steps of the run's own kind, on this machine, in a folder that goes afterwards.

    Weights are loaded, so that it takes a while for a large model. The first step is not counted. Raises what training
    raises.
    """
    from pawl.training.batches import schedule
    from pawl.training.chat_format_transformers import ChatFormat
    from pawl.training.peft_trainer import train

    # The later stages and what is made of the result are left out: they would be timed too.
    alone = {"epochs": 1.0, "pretrain": None, "preference": None, "ewc": None, "merge": None, "merged": False}
    short = spec.model_copy(update=alone)
    rows = _sample(dataset.train, _STEPS * spec.batch_size, dataset.fingerprint)
    form = ChatFormat(folder)
    lengths = [len(e.input_ids) for e in form.encode_all(rows, spec.max_tokens, spec.long).encoded]
    batches = schedule(lengths, spec.batch_size, 1.0, spec.seed)
    ends: list[float] = []

    def tick(_: Any) -> None:
        ends.append(time.monotonic())

    with tempfile.TemporaryDirectory(prefix="pawl-plan-") as tmp:
        some = DatasetVersion(agent=dataset.agent, examples=tuple(rows), sources=())
        path = datasets.save(some, Path(tmp))
        result = train(path, short, folder, Path(tmp) / "run", start_adapter=start, on_progress=tick)
    counted = sum(lengths[i] for b in batches[1:] for i in b)
    if len(ends) < 2 or not counted:
        return Speed(tokens_per_s=result.tokens_per_s, how="measured", note="one step", peak_mb=result.peak_mb)
    rate = counted / max(ends[-1] - ends[0], 1e-6)
    return Speed(tokens_per_s=rate, how="measured", note=f"{len(ends) - 1} steps", peak_mb=result.peak_mb)


def _sample(rows: Sequence[Example], most: int, seed: str) -> list[Example]:
    return list(rows) if len(rows) <= most else random.Random(seed).sample(list(rows), most)
