"""One stage of a run by transformers' Trainer: our batches in our order, killed at any step and resumed."""

from __future__ import annotations

import contextlib
import errno
import math
import os
import shutil
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import msgspec
import psutil
import torch
from accelerate import PartialState
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch.distributed.tensor import DTensor, distribute_tensor
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments

from pawl.errors import ResourceError, TrainingFailed
from pawl.training.chat_format_transformers import IGNORED, Encoded, collate
from pawl.training.losses_torch import PORTION, completion_loss, portions, whole_loss
from pawl.training.result import Progress, StageResult
from pawl.training.run_folder import WEIGHTS, last_checkpoint, write_whole

KEPT_CHECKPOINTS = 2
_SAVE_STEPS = 10
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class Optimiser(NamedTuple):
    """How the stage moves the weights. AdamW, cosine after a linear warm-up, gradients clipped at norm 1."""

    learning_rate: float
    warmup_share: float
    seed: int


class Adaptive(Protocol):
    """What moves on after each step, and is kept in checkpoints (AdaLoRA's ranks)."""

    def after_step(self, step: int) -> None: ...
    def save(self, folder: Path) -> None: ...
    def load(self, folder: Path) -> None: ...


class Terms(NamedTuple):
    """What is added to the loss."""

    regulariser: Callable[[Any], torch.Tensor] | None = None
    anchor: Callable[[Any], None] | None = None  # adds its gradient to what the batch gave


_NO_TERMS = Terms()


def run_stage(
    name: str,
    model: Any,
    batches: Sequence[Sequence[Encoded]],
    how: Optimiser,
    folder: Path,
    *,
    dtype: torch.dtype,
    on_progress: Callable[[Progress], None],
    terms: Terms = _NO_TERMS,
    adaptive: Adaptive | None = None,
    at_step: Callable[[int, int], None] | None = None,
) -> StageResult:
    """Train `model` in place on the batches, in their order.

    Checkpoints lie in `<folder>/checkpoints`; a stage that was cut off continues from the last whole one. A finished
    stage leaves `<folder>/done.safetensors` and is loaded from there when it is asked for again. `at_step(step, steps)`
    is called after each step, and may raise to end the run.

    Raises ResourceError (the disk is full), TrainingFailed (a loss that is not a number; the last good checkpoint
    stays).
    """
    folder.mkdir(parents=True, exist_ok=True)
    kept = _finished(folder, model)
    if kept is not None:
        return kept
    crew = processes()
    trainer = _trainer(name, model, batches, how, folder, dtype, on_progress, terms, adaptive, at_step)
    last = last_checkpoint(folder / "checkpoints")
    with full_disk_told(folder), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer.train(resume_from_checkpoint=str(last) if last else None)
        result = _result(name, trainer.state.log_history, batches, int(last.name.rpartition("-")[2]) if last else 0)
        found = trainable(model)
        if crew.is_main_process:
            save_file(found, str(folder / ".done.part"))
            (folder / ".done.part").replace(folder / "done.safetensors")
            if adaptive is not None:
                adaptive.save(folder)
            write_whole(folder / "stage.json", msgspec.json.encode(result))
            shutil.rmtree(folder / "checkpoints", ignore_errors=True)
    crew.wait_for_everyone()
    return result


def processes() -> PartialState:
    """The processes that train together (torchrun, accelerate launch): one, where nothing started more."""
    return PartialState() if torch.cuda.is_available() else PartialState(cpu=True)


def sharded() -> bool:
    """Whether weights are spread over the processes (FSDP), as accelerate's launcher says it."""
    return os.environ.get("ACCELERATE_USE_FSDP", "").lower() in ("1", "true", "yes")


def one_gpu(arguments: TrainingArguments) -> TrainingArguments:
    """Of several GPUs that one process sees, the first: transformers would wrap the model in DataParallel, which takes
    one item of the dataset a GPU, and ours are whole batches. Several GPUs are for several processes."""
    if arguments.n_gpu > 1:
        arguments._n_gpu = 1
    return arguments


def trainable(model: Any) -> dict[str, torch.Tensor]:
    """Name -> what is trained, on the CPU, whole: where it is sharded every process must ask."""
    found = {n: p.detach() for n, p in model.named_parameters() if p.requires_grad}
    whole = {n: p.full_tensor() if isinstance(p, DTensor) else p for n, p in found.items()}
    return {_plain(n): p.cpu().contiguous() for n, p in whole.items()}


def load_trained(model: Any, path: Path) -> None:
    """Put what `trainable` gave, and was saved, into a model of the same shape."""
    found = load_file(str(path))
    with torch.no_grad():
        for name, p in model.named_parameters():
            if p.requires_grad:
                kept = found[_plain(name)].to(p.device)
                p.copy_(distribute_tensor(kept, p.device_mesh, p.placements) if isinstance(p, DTensor) else kept)


def _plain(name: str) -> str:
    """A parameter's name without what wrappers put into it."""
    return name.removeprefix("module.").replace("_orig_mod.", "").replace("_fsdp_wrapped_module.", "")


@contextlib.contextmanager
def full_disk_told(folder: Path) -> Iterator[None]:
    """A disk that is full, whichever library met it, as a ResourceError."""
    try:
        yield
    except (OSError, SafetensorError, RuntimeError) as e:
        # safetensors and torch's archive writer tell it in words only.
        in_words = any(
            w in str(e) for w in ("No space left", "File too large", "PytorchStreamWriter", "unexpected pos")
        )
        if getattr(e, "errno", None) in _FULL or in_words:
            raise ResourceError(
                f"the disk filled up while training in {folder}; free space and run again: it continues from the last "
                "whole checkpoint"
            ) from e
        raise


def _finished(folder: Path, model: Any) -> StageResult | None:
    try:
        result = msgspec.json.decode((folder / "stage.json").read_bytes(), type=StageResult)
        load_trained(model, folder / "done.safetensors")
    except (OSError, msgspec.MsgspecError, SafetensorError):
        return None
    return result


def _trainer(
    name: str,
    model: Any,
    batches: Sequence[Sequence[Encoded]],
    how: Optimiser,
    folder: Path,
    dtype: torch.dtype,
    on_progress: Callable[[Progress], None],
    terms: Terms,
    adaptive: Adaptive | None,
    at_step: Callable[[int, int], None] | None,
) -> Any:
    together = processes().num_processes  # each takes every so-manieth batch; a step is one of each
    steps = math.ceil(len(batches) / together)
    pad = model.config.pad_token_id if model.config.pad_token_id is not None else 0
    began = time.monotonic()
    seen_before = 0.0
    process = psutil.Process()

    class StageTrainer(Trainer):  # type: ignore[misc]
        """Computes the loss where labels are, stops at the first that is not a number, saves what is trained."""

        def compute_loss(
            self, model: Any, inputs: dict[str, torch.Tensor], return_outputs: bool = False, **_: Any
        ) -> torch.Tensor:
            device = inputs["input_ids"].device.type
            with torch.autocast(device, torch.bfloat16, enabled=dtype == torch.bfloat16):
                several = self.accelerator.num_processes > 1
                loss = whole_loss(model, inputs) if several else completion_loss(model, inputs)
            if terms.regulariser:
                loss = loss + terms.regulariser(self.accelerator.unwrap_model(model))
            return self._finite(loss)

        def training_step(self, model: Any, inputs: dict[str, torch.Tensor], *args: Any, **kwargs: Any) -> torch.Tensor:
            """The gradient of the whole batch, summed up part by part on a CPU, where memory is what is short."""
            if torch.cuda.is_available() or self.accelerator.num_processes > 1:
                whole: torch.Tensor = super().training_step(model, inputs, *args, **kwargs)
            else:
                model.train()
                tokens = int((inputs["labels"][:, 1:] != IGNORED).sum())
                whole = torch.zeros(())
                for part in portions(inputs, PORTION):
                    with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
                        loss = completion_loss(model, part, tokens)
                    self.accelerator.backward(loss)
                    whole += loss.detach()
                if terms.regulariser:
                    self.accelerator.backward(terms.regulariser(model))
            if terms.anchor:
                terms.anchor(self.accelerator.unwrap_model(model))
            return self._finite(whole)

        def _finite(self, loss: torch.Tensor) -> torch.Tensor:
            if not torch.isfinite(loss):
                last = last_checkpoint(folder / "checkpoints")
                kept = f"the last good checkpoint is {last.name} in {last.parent}" if last else "before any checkpoint"
                raise TrainingFailed(
                    f"the loss became {loss.item()} at step {self.state.global_step + 1} of {steps} ({kept}): "
                    f"lower training.learning_rate (it is {how.learning_rate:g}), or look for broken examples in the "
                    "dataset"
                )
            return loss

        def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
            """What is trained, under its own names: a shape that peft would cut down fits no optimiser's state."""
            place = Path(output_dir or self.args.output_dir)
            place.mkdir(parents=True, exist_ok=True)
            if self.args.should_save:
                # Sharded weights come gathered in `state_dict`.
                inner = self.accelerator.unwrap_model(self.model)
                names = {_plain(n) for n, p in inner.named_parameters() if p.requires_grad}
                given = {_plain(n): t.cpu().contiguous() for n, t in (state_dict or {}).items()}
                found = {n: given[n] for n in names} if names <= given.keys() else trainable(inner)
                save_file(found, str(place / WEIGHTS))
                if adaptive is not None:
                    adaptive.save(place)

        def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
            load_trained(self.model if model is None else model, Path(resume_from_checkpoint) / WEIGHTS)
            if adaptive is not None:
                adaptive.load(Path(resume_from_checkpoint))

        def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
            # Kept in the trainer's state, and so through checkpoints.
            super().log({**logs, "seconds": seen_before + time.monotonic() - began}, *args, **kwargs)

    class Tell(TrainerCallback):  # type: ignore[misc]
        """Passes each step on."""

        def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            nonlocal seen_before, began
            began = time.monotonic()
            seen_before = max((h.get("seconds", 0.0) for h in state.log_history), default=0.0)

        def on_optimizer_step(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if adaptive is not None:
                adaptive.after_step(state.global_step + 1)

        def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **_: Any) -> None:
            if not logs or "loss" not in logs:
                return
            # Nothing that was already computed before an interruption counts into the speed.
            first = min((h["step"] for h in state.log_history if h.get("seconds", 0.0) > seen_before), default=1) - 1
            done = sum(len(e.input_ids) for b in batches[first * together : state.global_step * together] for e in b)
            on_progress(
                Progress(
                    step=state.global_step,
                    steps=steps,
                    loss=float(logs["loss"]),
                    learning_rate=float(logs.get("learning_rate", 0.0)),
                    tokens_per_s=done / max(time.monotonic() - began, 1e-6),
                    stage=name,
                    memory_mb=memory_mb(process),
                )
            )
            if at_step is not None:
                at_step(state.global_step, steps)

    trainer = StageTrainer(
        model=model,
        args=_arguments(how, steps, folder),
        train_dataset=list(batches),
        data_collator=lambda items: _batch(items, pad),
        callbacks=[Tell()],
    )
    trainer.remove_callback(PrinterCallback)
    return trainer


def _batch(items: Sequence[Sequence[Encoded]], pad: int) -> dict[str, torch.Tensor]:
    assert len(items) == 1, f"{len(items)} batches at once: one item is one whole batch"
    return collate(items[0], pad)


def _arguments(how: Optimiser, steps: int, folder: Path) -> TrainingArguments:
    found = TrainingArguments(
        output_dir=str(folder / "checkpoints"),
        # One item of the dataset is one whole batch, so that the order is ours and a resumed run repeats it.
        per_device_train_batch_size=1,
        train_sampling_strategy="sequential",
        num_train_epochs=1,
        learning_rate=how.learning_rate,
        lr_scheduler_type="cosine",
        warmup_steps=math.ceil(steps * how.warmup_share),
        weight_decay=0.0,
        max_grad_norm=1.0,
        logging_steps=1,
        logging_nan_inf_filter=False,
        # At most twenty times a run: a checkpoint of a large model takes as long as many steps.
        save_steps=max(_SAVE_STEPS, steps // 20),
        save_total_limit=KEPT_CHECKPOINTS,
        seed=how.seed,
        data_seed=how.seed,
        report_to="none",
        disable_tqdm=True,
        remove_unused_columns=False,
        dataloader_pin_memory=torch.cuda.is_available(),
        use_cpu=not torch.cuda.is_available(),
    )
    return one_gpu(found)


def memory_mb(process: psutil.Process) -> float:
    """Resident set of the process on a CPU, what is allocated on a GPU; MB."""
    if torch.cuda.is_available():
        return float(torch.cuda.memory_allocated() / 2**20)
    return float(process.memory_info().rss / 2**20)


def _result(
    name: str, history: list[dict[str, float]], batches: Sequence[Sequence[Encoded]], resumed_at: int
) -> StageResult:
    losses = [h["loss"] for h in history if "loss" in h]
    tenth = max(1, len(losses) // 10)
    return StageResult(
        name=name,
        steps=math.ceil(len(batches) / processes().num_processes),
        items=sum(len(b) for b in batches),
        tokens=sum(len(e.input_ids) for b in batches for e in b),
        seconds=max((h.get("seconds", 0.0) for h in history), default=0.0),
        loss_first=sum(losses[:tenth]) / tenth,
        loss_last=sum(losses[-tenth:]) / tenth,
        resumed_at=resumed_at,
        losses=curve(history),
    )


def curve(history: Sequence[dict[str, float]]) -> tuple[tuple[int, float], ...]:
    """(step, loss) of a trainer's log. It is kept in checkpoints: a resumed run has all of its steps."""
    return tuple((int(h["step"]), float(h["loss"])) for h in history if "loss" in h)
