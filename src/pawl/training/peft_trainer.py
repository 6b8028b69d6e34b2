"""Trains a LoRA adapter with transformers' Trainer and peft; survives being killed at any moment.

Method: Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models" (arXiv 2106.09685), section 4, on all linear
layers as in Dettmers et al., "QLoRA" (arXiv 2305.14314), section 5.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import json
import math
import shutil
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from pawl.curation import dataset as datasets
from pawl.errors import ModelFileError, NotEnoughData, ResourceError, TrainingFailed
from pawl.fleet.training import TrainingSpec
from pawl.training.base_model_transformers import base_name, need_disk, safetensors_problem
from pawl.training.batches import schedule
from pawl.training.chat_format_transformers import IGNORED, ChatFormat, Encoded, collate
from pawl.training.result import Progress, TrainResult
from pawl.training.run_folder import WEIGHTS, last_checkpoint, prepare_folder, run_key, write_whole

if TYPE_CHECKING:
    import torch

_PORTION = 1200  # tokens whose activations are held at once on a CPU: about 3 GB for a 135M model
_SAVE_STEPS = 10
_KEEP = 2
# Adapter and two moments of the optimiser in float32, for the kept checkpoints, the one being written, and the result.
_BYTES_A_PARAMETER = 12 * (_KEEP + 1) + 4


def train(
    dataset_path: Path,
    spec: TrainingSpec,
    base_dir: Path,
    out_dir: Path,
    *,
    start_adapter: Path | None,
    on_progress: Callable[[Progress], None],
) -> TrainResult:
    """Train an adapter into `<out_dir>/adapter` and return what happened.

    A run that was cut off continues from its last whole checkpoint in `<out_dir>/checkpoints`; a finished one is
    returned as it is. Both only for the same data, spec, base and start: anything else begins anew.

    Raises NotEnoughData (nothing left to train on), ModelFileError (base or start adapter), ResourceError (disk),
    TrainingFailed (unreadable dataset, loss not a number).
    """
    try:
        dataset = datasets.load(dataset_path)
    except (OSError, msgspec.DecodeError) as e:
        raise TrainingFailed(f"dataset {dataset_path} cannot be read ({e}); prepare it again") from e
    key = run_key(dataset.fingerprint, spec, base_dir, start_adapter)
    finished = prepare_folder(out_dir, key)
    if finished is not None:
        return finished
    form = ChatFormat(base_dir)
    encoded, dropped = form.encode_all(dataset.train, spec.max_tokens)
    if not encoded:
        raise NotEnoughData(
            f"none of {len(dataset.train)} examples fits into {spec.max_tokens} tokens; raise training.max_tokens"
        )
    batches = schedule([len(e.input_ids) for e in encoded], spec.batch_size, spec.epochs, spec.seed)
    _keep_freed_memory()
    model, dtype = _model(base_dir, spec, start_adapter)
    parameters = sum(p.numel() for p in model.parameters() if p.requires_grad)
    need_disk(out_dir, parameters * _BYTES_A_PARAMETER, "training")
    trainer = _trainer(model, spec, [[encoded[i] for i in b] for b in batches], out_dir, dtype, on_progress)
    last = last_checkpoint(out_dir / "checkpoints")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            trainer.train(resume_from_checkpoint=str(last) if last else None)
        _save_adapter(model, base_name(base_dir), out_dir / "adapter")
    except OSError as e:
        if e.errno == errno.ENOSPC:
            raise ResourceError(f"the disk filled up while training in {out_dir}; free space and run again") from e
        raise
    result = _result(trainer.state.log_history, batches, encoded)
    result = msgspec.structs.replace(
        result,
        adapter_dir=str(out_dir / "adapter"),
        dropped=dropped,
        parameters=parameters,
        dtype=str(dtype).removeprefix("torch."),
        resumed_at=int(last.name.rpartition("-")[2]) if last else 0,
        started_from=start_adapter.name if start_adapter else "",
    )
    write_whole(out_dir / "result.json", msgspec.json.encode(result))
    shutil.rmtree(out_dir / "checkpoints", ignore_errors=True)
    return result


def best_dtype() -> torch.dtype:
    """bfloat16 where the processor computes in it, else float32: emulated, it would be slower."""
    import torch

    if torch.cuda.is_available():
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float32
    names = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    fast = any(getattr(torch.cpu, n)() for n in names if hasattr(torch.cpu, n))
    return torch.bfloat16 if fast else torch.float32


def completion_loss(model: Any, batch: dict[str, torch.Tensor], tokens: int | None = None) -> torch.Tensor:
    """Cross entropy over the completion's tokens, in nats: their mean, or their sum divided by `tokens`.

    The vocabulary head runs only where a label is: over a small model's whole sequence it is a fifth of the compute.
    """
    import torch

    core = model.get_base_model()
    labels = batch["labels"][:, 1:]
    wanted = labels != IGNORED
    hidden = core.base_model(input_ids=batch["input_ids"], use_cache=False).last_hidden_state
    logits = core.get_output_embeddings()(hidden[:, :-1][wanted])
    total: torch.Tensor = torch.nn.functional.cross_entropy(logits.float(), labels[wanted], reduction="sum")
    return total / (int(wanted.sum()) if tokens is None else tokens)


def portions(batch: dict[str, torch.Tensor], most_tokens: int) -> list[dict[str, torch.Tensor]]:
    """A padded batch in parts of at most that many tokens (at least one row each), so that activations fit."""
    rows, width = batch["input_ids"].shape
    each = max(1, most_tokens // width)
    return [{k: v[i : i + each] for k, v in batch.items()} for i in range(0, rows, each)]


def _model(base_dir: Path, spec: TrainingSpec, start_adapter: Path | None) -> tuple[Any, torch.dtype]:
    import torch
    from peft import LoraConfig, PeftModel, get_peft_model
    from transformers import AutoModelForCausalLM, set_seed
    from transformers.utils import logging

    logging.disable_progress_bar()
    set_seed(spec.seed)
    dtype = best_dtype()
    # On CPU plain attention on short sequences beats the fused kernel, whose backward pass is slow in bfloat16.
    attention = "sdpa" if torch.cuda.is_available() else "eager"
    try:
        base = AutoModelForCausalLM.from_pretrained(str(base_dir), dtype=dtype, attn_implementation=attention)
    except (OSError, ValueError, KeyError) as e:
        raise ModelFileError(f"base model in {base_dir} cannot be loaded ({e}); prepare it again") from e
    # The adapter stays in float32 (peft's default for a bfloat16 base): small updates would be rounded away.
    if start_adapter is None:
        config = LoraConfig(
            r=spec.rank, lora_alpha=spec.alpha, lora_dropout=0.0, target_modules="all-linear", task_type="CAUSAL_LM"
        )
        return get_peft_model(base, config), dtype
    try:
        model = PeftModel.from_pretrained(base, str(start_adapter), is_trainable=True)
    except (OSError, ValueError, KeyError, RuntimeError) as e:
        raise ModelFileError(
            f"start adapter {start_adapter} cannot be loaded on {base_dir.name} ({e}); set training.start: base"
        ) from e
    rank = model.peft_config["default"].r
    if rank != spec.rank:
        raise ModelFileError(
            f"start adapter {start_adapter.name} has rank {rank}, the spec says {spec.rank}: "
            f"set training.rank: {rank}, or training.start: base"
        )
    return model, dtype


def _trainer(
    model: Any,
    spec: TrainingSpec,
    batches: list[list[Encoded]],
    out_dir: Path,
    dtype: torch.dtype,
    on_progress: Callable[[Progress], None],
) -> Any:
    import torch
    from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments

    steps = len(batches)
    pad = model.config.pad_token_id if model.config.pad_token_id is not None else 0
    began = time.monotonic()
    seen_before = 0.0

    class CompletionTrainer(Trainer):  # type: ignore[misc]
        """Computes the loss where labels are, and stops at the first loss that is not a number."""

        def compute_loss(
            self, model: Any, inputs: dict[str, torch.Tensor], return_outputs: bool = False, **_: Any
        ) -> torch.Tensor:
            device = inputs["input_ids"].device.type
            with torch.autocast(device, torch.bfloat16, enabled=dtype == torch.bfloat16):
                # Wrapped for several devices, only the wrapper's own forward exchanges gradients.
                several = self.accelerator.num_processes > 1
                loss: torch.Tensor = model(**inputs).loss if several else completion_loss(model, inputs)
            return self._finite(loss)

        def training_step(self, model: Any, inputs: dict[str, torch.Tensor], *args: Any, **kwargs: Any) -> torch.Tensor:
            """The gradient of the whole batch, summed up part by part on a CPU, where memory is what is short."""
            if torch.cuda.is_available() or self.accelerator.num_processes > 1:
                whole: torch.Tensor = super().training_step(model, inputs, *args, **kwargs)
                return whole
            model.train()
            tokens = int((inputs["labels"][:, 1:] != IGNORED).sum())
            total = torch.zeros(())
            for part in portions(inputs, _PORTION):
                with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
                    loss = completion_loss(model, part, tokens)
                self.accelerator.backward(loss)
                total += loss.detach()
            return self._finite(total)

        def _finite(self, loss: torch.Tensor) -> torch.Tensor:
            if not torch.isfinite(loss):
                raise TrainingFailed(
                    f"the loss became {loss.item()} at step {self.state.global_step + 1} of {steps}: "
                    "lower training.learning_rate (it is "
                    f"{spec.learning_rate:g}), or look for broken examples in the dataset"
                )
            return loss

        def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
            # Kept in the trainer's state, and so through checkpoints.
            super().log({**logs, "seconds": seen_before + time.monotonic() - began}, *args, **kwargs)

    class Tell(TrainerCallback):  # type: ignore[misc]
        """Passes each step on."""

        def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            nonlocal seen_before, began
            began = time.monotonic()
            seen_before = max((h.get("seconds", 0.0) for h in state.log_history), default=0.0)

        def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **_: Any) -> None:
            if not logs or "loss" not in logs:
                return
            # Nothing that was already computed before an interruption counts into the speed.
            first = min((h["step"] for h in state.log_history if h.get("seconds", 0.0) > seen_before), default=1) - 1
            done = sum(len(e.input_ids) for b in batches[first : state.global_step] for e in b)
            on_progress(
                Progress(
                    step=state.global_step,
                    steps=steps,
                    loss=float(logs["loss"]),
                    learning_rate=float(logs.get("learning_rate", 0.0)),
                    tokens_per_s=done / max(time.monotonic() - began, 1e-6),
                )
            )

    arguments = TrainingArguments(
        output_dir=str(out_dir / "checkpoints"),
        # One item of the dataset is one whole batch, so that the order is ours and a resumed run repeats it.
        per_device_train_batch_size=1,
        train_sampling_strategy="sequential",
        num_train_epochs=1,
        learning_rate=spec.learning_rate,
        lr_scheduler_type="cosine",
        warmup_steps=math.ceil(steps * spec.warmup_share),
        weight_decay=0.0,
        max_grad_norm=1.0,
        logging_steps=1,
        logging_nan_inf_filter=False,
        save_steps=_SAVE_STEPS,
        save_total_limit=_KEEP,
        seed=spec.seed,
        data_seed=spec.seed,
        report_to="none",
        disable_tqdm=True,
        remove_unused_columns=False,
        dataloader_pin_memory=torch.cuda.is_available(),
        use_cpu=not torch.cuda.is_available(),
    )
    trainer = CompletionTrainer(
        model=model,
        args=arguments,
        train_dataset=batches,
        data_collator=lambda items: collate(items[0], pad),
        callbacks=[Tell()],
    )
    trainer.remove_callback(PrinterCallback)
    return trainer


def _result(history: list[dict[str, float]], batches: list[list[int]], encoded: list[Encoded]) -> TrainResult:
    losses = [h["loss"] for h in history if "loss" in h]
    tenth = max(1, len(losses) // 10)
    seconds = max((h.get("seconds", 0.0) for h in history), default=0.0)
    tokens = sum(len(encoded[i].input_ids) for b in batches for i in b)
    return TrainResult(
        adapter_dir="",
        steps=len(batches),
        examples=len(encoded),
        dropped=0,
        tokens=tokens,
        completion_tokens=sum(encoded[i].completion_tokens for b in batches for i in b),
        seconds=seconds,
        tokens_per_s=tokens / max(seconds, 1e-6),
        loss_first=sum(losses[:tenth]) / tenth,
        loss_last=sum(losses[-tenth:]) / tenth,
        parameters=0,
        dtype="",
    )


def _save_adapter(model: Any, base: str, target: Path) -> None:
    """Write the adapter beside its place and move it there: it is whole or absent."""
    part = target.with_name(f".{target.name}.part")
    for stale in (part, target):
        shutil.rmtree(stale, ignore_errors=True)
    model.save_pretrained(str(part), save_embedding_layers=False)
    (part / "README.md").unlink(missing_ok=True)  # peft's empty model card, with this machine's path in it
    config = json.loads((part / "adapter_config.json").read_text())
    config["base_model_name_or_path"] = base
    config["target_modules"] = sorted(config["target_modules"])  # a set there: the same adapter, the same bytes
    write_whole(part / "adapter_config.json", json.dumps(config, indent=2, sort_keys=True).encode())
    problem = safetensors_problem(part / WEIGHTS)
    if problem:
        raise TrainingFailed(f"the adapter was not written whole ({problem}); check the disk and run again")
    part.rename(target)


def _keep_freed_memory() -> None:
    """Let glibc keep what tensors free. By default each large one is given back to the kernel and faulted in anew at
    every step; keeping it makes a step on CPU a quarter faster."""
    trim_threshold, mmap_threshold = -1, -3
    with contextlib.suppress(OSError, AttributeError):
        libc = ctypes.CDLL("libc.so.6")
        libc.mallopt(mmap_threshold, 1 << 30)
        libc.mallopt(trim_threshold, (1 << 31) - 1)
