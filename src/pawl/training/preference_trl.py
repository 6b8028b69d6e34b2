"""Learning from pairs of answers with TRL, on the adapter that the examples have trained.

Methods: DPO (Rafailov et al., arXiv 2305.18290, equation 7) and KTO (Ethayarajh et al., arXiv 2402.01306, section 4).
"""

from __future__ import annotations

import contextlib
import hashlib
import math
import shutil
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import psutil

from pawl.curation.dataset import Pair
from pawl.errors import TrainingFailed
from pawl.fleet.training import PreferenceSpec
from pawl.training.base_model_transformers import need_disk
from pawl.training.chat_format_transformers import ChatFormat
from pawl.training.preference_report import STAGE, Clock, left_out, result_of, tokens_of
from pawl.training.preferences import Rated, Sides, class_weights, fitting, order, rated, strangers
from pawl.training.result import Progress, StageResult
from pawl.training.run_folder import WEIGHTS, last_checkpoint, write_whole
from pawl.training.stage_transformers import KEPT_CHECKPOINTS, full_disk_told, memory_mb, one_gpu, trainable

if TYPE_CHECKING:
    import torch

_SAVE_STEPS = 10
_BYTES_A_PARAMETER = 12 * (
    KEPT_CHECKPOINTS + 1
)  # the adapter and two moments of the optimiser in float32, in each checkpoint
_WARMUP = 0.1  # of the steps: the first gradients are those of a few pairs
# Above so many tokens a step activations are computed twice instead of held: held, 3 MB a token of a 135M model.
_HELD_TOKENS = 2048


def prefer(
    model: Any,
    form: ChatFormat,
    pairs: Sequence[Pair],
    spec: PreferenceSpec,
    folder: Path,
    *,
    base_dir: Path,
    max_tokens: int,
    seed: int,
    dtype: torch.dtype,
    on_progress: Callable[[Progress], None],
) -> StageResult:
    """Train `model`, a peft model whose adapter `default` is trainable (or full weights), in place, towards the better
    answers.

    What it is held to (the reference policy) is the model as it stands at the call: TRL keeps a frozen copy of a LoRA
    beside it while the stage runs; with AdaLoRA and full weights the reference's answers are computed before the first
    step. Prompts and answers become tokens as in the examples' stage. Only pairs of the training split are used; those
    longer than `max_tokens` are left out and counted. DPO takes them as pairs; KTO takes their answers one by one, good
    or bad, and weighs the rarer kind up. All pairs count alike: curation makes a pair only of a clear difference. The
    loss is the method's own: where nothing is learnt yet ln 2 in DPO, 0.5 in KTO.

    Checkpoints lie in `folder`; called again after a kill with the same model, pairs and spec, it goes on from the last
    whole one to the same weights. A finished stage comes back from its last checkpoint in no steps. The caller removes
    the folder once it has kept the model.

    With fewer than `spec.min_pairs` usable pairs nothing is trained: `steps` is 0 and `note` tells why.

    Raises TrainingFailed (loss or weights that are no number), ResourceError (disk).
    """
    ours = [_sides(form, p) for p in pairs if p.split == "train"]
    usable = fitting(ours, max_tokens)
    long = len(ours) - len(usable)
    told = f"{long} pairs with an answer longer than {max_tokens} tokens left out; " if long else ""
    if len(usable) < spec.min_pairs:
        return left_out(f"{told}{len(usable)} pairs are fewer than training.preference.min_pairs {spec.min_pairs}")
    items: Sequence[Sides | Rated] = usable
    weights, group, least = (1.0, 1.0), spec.batch_size, 1
    if spec.method == "kto":
        items = answers = rated(ours, max_tokens)
        # The reference point needs two answers in a step.
        weights, group, least = class_weights(answers), spec.batch_size * 2, 2
        if len(items) < least:
            return left_out(f"{told}no two answers of the pairs are always the better or always the worse one")
    picked = [items[i] for i in order(len(items), spec.epochs, group, least, seed)]
    rows = _rows(picked, group)
    _prepare(folder, model, picked, spec, seed)
    steps = math.ceil(len(rows) / group)
    with _as_it_was(model):
        run = _trainer(model, spec, rows, weights, folder, base_dir, seed, dtype, on_progress)
        last = last_checkpoint(folder)
        with full_disk_told(folder), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            run.train(resume_from_checkpoint=str(last) if last else None)
    if not all(bool(p.isfinite().all()) for p in model.parameters() if p.requires_grad):
        raise TrainingFailed(f"the weights are no numbers after {STAGE}: lower training.preference.learning_rate")
    result = result_of(run.state.log_history, rows, steps, len(items), told)
    return msgspec.structs.replace(result, resumed_at=int(last.name.rpartition("-")[2]) if last else 0)


def _copies(model: Any) -> bool:
    """Whether peft can hold a frozen copy beside it: not of AdaLoRA, and not of full weights."""
    kind = getattr(getattr(model, "peft_config", {}).get("default"), "peft_type", None)
    return kind is not None and str(getattr(kind, "value", kind)).upper() != "ADALORA"


def _sides(form: ChatFormat, pair: Pair) -> Sides:
    chosen, rejected = form.pair(pair.messages, pair.chosen), form.pair(pair.messages, pair.rejected)
    begins = len(chosen.input_ids) - chosen.completion_tokens
    return Sides(chosen.input_ids[:begins], chosen.input_ids[begins:], rejected.input_ids[begins:])


def _rows(picked: Sequence[Sides | Rated], group: int) -> list[dict[str, Any]]:
    """What TRL's collators read, in the order of training."""
    pairs = [p for p in picked if isinstance(p, Sides)]
    if pairs:
        return [{"prompt_ids": p.prompt, "chosen_ids": p.chosen, "rejected_ids": p.rejected} for p in pairs]
    answers = [p for p in picked if isinstance(p, Rated)]
    return [
        {"prompt_ids": a.prompt, "completion_ids": a.completion, "KL_completion_ids": other, "label": a.good}
        for a, other in zip(answers, strangers(answers, group), strict=True)
    ]


def _prepare(folder: Path, model: Any, picked: Sequence[Any], spec: PreferenceSpec, seed: int) -> None:
    """Empties the folder of the checkpoints of another stage: other items, order, spec or weights to begin with."""
    import torch

    digest = hashlib.sha256(f"{spec.model_dump_json()}\0{seed}\0".encode())
    digest.update(msgspec.json.encode(picked))
    parameters = 0
    for name, p in model.named_parameters():
        if p.requires_grad:
            parameters += p.numel()
            digest.update(f"\0{name}\0".encode())
            digest.update(p.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    need_disk(folder, parameters * _BYTES_A_PARAMETER, "learning from preferences")
    mark, key = folder / "stage.key", digest.hexdigest()
    if not mark.exists() or mark.read_text() != key:
        for stale in folder.glob("checkpoint-*"):
            shutil.rmtree(stale, ignore_errors=True)
        with full_disk_told(folder):
            write_whole(mark, key.encode())


@contextlib.contextmanager
def _as_it_was(model: Any) -> Iterator[None]:
    """Takes back what TRL leaves on a model: the reference adapter, its own forward pass, its padding token."""
    core = model.get_base_model() if hasattr(model, "get_base_model") else model
    pads = [(c, getattr(c, "pad_token_id", None)) for c in (model.config.get_text_config(), model.generation_config)]
    forward = core.__dict__.get("forward")
    try:
        yield
    finally:
        if "ref" in getattr(model, "peft_config", {}):
            model.delete_adapter("ref")
        core.__dict__.pop("forward", None)
        if forward is not None:
            core.forward = forward
        if getattr(core, "is_gradient_checkpointing", False):
            core.gradient_checkpointing_disable()
            core.disable_input_require_grads()
        for config, pad in pads:
            config.pad_token_id = pad


def _trainer(
    model: Any,
    spec: PreferenceSpec,
    rows: list[dict[str, Any]],
    weights: tuple[float, float],
    folder: Path,
    base_dir: Path,
    seed: int,
    dtype: torch.dtype,
    on_progress: Callable[[Progress], None],
) -> Any:
    import torch
    from datasets import Dataset
    from safetensors.torch import load_file, save_file
    from transformers import AutoTokenizer, PrinterCallback, TrainerCallback
    from trl.trainer.dpo_config import DPOConfig
    from trl.trainer.dpo_trainer import DPOTrainer
    from trl.trainer.kto_config import KTOConfig
    from trl.trainer.kto_trainer import KTOTrainer

    paired = spec.method == "dpo"
    group = spec.batch_size if paired else spec.batch_size * 2
    steps = math.ceil(len(rows) / group)
    parent: Any = DPOTrainer if paired else KTOTrainer
    widest = max(tokens_of(r) for r in rows)

    class Stage(parent):  # type: ignore[misc]
        """Takes tokens as they are, stops at a loss that is no number, and keeps nothing but the adapter."""

        def _prepare_dataset(self, dataset: Any, *_: Any, **__: Any) -> Any:
            return dataset

        def _send_telemetry(self) -> None:
            return None

        def create_model_card(self, *_: Any, **__: Any) -> None:
            return None

        def compute_loss(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> torch.Tensor:
            device = inputs["input_ids"].device.type
            # Policy and reference in the same precision: where they are the same, so are their answers.
            with torch.autocast(device, torch.bfloat16, enabled=dtype == torch.bfloat16):
                loss: torch.Tensor = super().compute_loss(model, inputs, *args, **kwargs)
            if not torch.isfinite(loss):
                raise TrainingFailed(
                    f"the loss became {loss.item()} at step {self.state.global_step + 1} of {steps} of {STAGE}: lower "
                    f"training.preference.learning_rate (it is {spec.learning_rate:g}), or look for broken pairs"
                )
            return loss

        def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
            # Kept in the trainer's state, and so through checkpoints.
            super().log({**logs, "seconds": clock.seconds()}, *args, **kwargs)

        def compute_ref_log_probs(self, *args: Any, **kwargs: Any) -> Any:
            with torch.autocast(self.accelerator.device.type, torch.bfloat16, enabled=dtype == torch.bfloat16):
                return super().compute_ref_log_probs(*args, **kwargs)

        def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
            place = Path(output_dir or self.args.output_dir)
            place.mkdir(parents=True, exist_ok=True)
            if self.args.should_save:
                save_file(trainable(self.accelerator.unwrap_model(self.model)), str(place / WEIGHTS))

        def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
            found = load_file(str(Path(resume_from_checkpoint) / WEIGHTS))
            with torch.no_grad():
                for name, p in (self.model if model is None else model).named_parameters():
                    if p.requires_grad:
                        p.copy_(found[name])

    class Tell(TrainerCallback):  # type: ignore[misc]
        """Passes each step on."""

        def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            clock.start(state.log_history, state.global_step)

        def on_optimizer_step(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            with torch.no_grad():
                for p, kept in ranks:
                    p.mul_(kept)

        def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **_: Any) -> None:
            if logs and "loss" in logs:
                on_progress(clock.progress(state.global_step, logs, memory_mb(process)))

    common: dict[str, Any] = dict(
        output_dir=str(folder),
        per_device_train_batch_size=group,
        train_sampling_strategy="sequential",  # the order is ours, and a resumed run repeats it
        num_train_epochs=1,
        beta=spec.beta,
        max_length=None,
        learning_rate=spec.learning_rate,
        lr_scheduler_type="cosine",
        warmup_steps=math.ceil(steps * _WARMUP),
        weight_decay=0.0,
        max_grad_norm=1.0,
        logging_steps=1,
        logging_nan_inf_filter=False,
        save_steps=_SAVE_STEPS,
        save_total_limit=KEPT_CHECKPOINTS,
        seed=seed,
        data_seed=seed,
        bf16=False,  # autocast is our own, around the loss
        gradient_checkpointing=widest * group > _HELD_TOKENS,
        precompute_ref_log_probs=not _copies(model),
        report_to="none",
        push_to_hub=False,
        disable_tqdm=True,
        remove_unused_columns=False,
        dataloader_pin_memory=torch.cuda.is_available(),
        use_cpu=not torch.cuda.is_available(),
    )
    kto: dict[str, Any] = dict(desirable_weight=weights[0], undesirable_weight=weights[1])
    arguments = one_gpu(DPOConfig(**common) if paired else KTOConfig(**common, **kto))
    clock = Clock([tokens_of(r) for r in rows], group, steps)
    # TRL rounds the adapter of a quantised base to bfloat16; the optimiser needs it as it was.
    quantised = getattr(model, "is_loaded_in_4bit", False) or getattr(model, "is_loaded_in_8bit", False)
    exact = {n: p.detach().clone() for n, p in model.named_parameters() if quantised and p.requires_grad}
    # Ranks that AdaLoRA has pruned stay pruned.
    ranks = [(p, p != 0) for n, p in model.named_parameters() if ".lora_E." in n and p.requires_grad]
    process = psutil.Process()
    trainer = Stage(
        # Where there is no copy TRL must not take the base for the reference: it does not see that there are adapters.
        model=model if _copies(model) or not hasattr(model, "get_base_model") else model.get_base_model(),
        args=arguments,
        train_dataset=Dataset.from_list(rows),
        processing_class=AutoTokenizer.from_pretrained(str(base_dir)),
        callbacks=[Tell()],
    )
    for name, p in model.named_parameters():
        if name in exact:
            p.data = exact[name]
    trainer.remove_callback(PrinterCallback)
    return trainer
