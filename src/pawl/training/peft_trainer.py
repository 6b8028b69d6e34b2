"""From a dataset version to an adapter: pre-training on text, learning from examples, learning from preferences.

transformers, peft and TRL train; what is ours is the order of examples, the loss where labels are, and coming back
after being killed at any moment.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import hashlib
import math
import random
import resource
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from pawl.curation import dataset as datasets
from pawl.curation.dataset import DatasetVersion, Example
from pawl.errors import ModelFileError, NotEnoughData, ResourceError
from pawl.fleet.training import TrainingSpec
from pawl.training.base_model_transformers import base_name, need_disk
from pawl.training.batches import schedule
from pawl.training.chat_format_transformers import ChatFormat, Encoded
from pawl.training.result import TrainResult
from pawl.training.run_folder import prepare_folder, run_key, write_whole
from pawl.training.run_peft import OnProgress, OnValidation, Run

if TYPE_CHECKING:
    from pawl.training.pretraining import Gathered

VALIDATION_EXAMPLES = 64
# What is trained and two moments of the optimiser in float32, for two checkpoints, the one being written, the result.
_BYTES_A_PARAMETER = 12 * (2 + 1) + 4


def train(
    dataset_path: Path,
    spec: TrainingSpec,
    base_dir: Path,
    out_dir: Path,
    *,
    start_adapter: Path | None,
    on_progress: OnProgress,
    earlier: Sequence[Example] = (),
    texts: Path | None = None,
    merge_with: Sequence[Path] = (),
    on_validation: OnValidation | None = None,
    validate_every: float = 0.0,
) -> TrainResult:
    """Train into `<out_dir>/adapter` (with `spec.merged` into `<out_dir>/merged` too) and return what happened.

    A run that was cut off continues from its last whole checkpoint; a finished one is returned as it is. Both only for
    the same data, spec, base and start: anything else begins anew.

    `earlier`: examples of earlier weeks that `spec.ewc` holds on to, the first of them that fit; more than it asks for
    do no harm. `texts`: the folder that `spec.pretrain.files`
    are looked for in. `merge_with`: adapters that the result is averaged with, by `spec.merge`. `on_validation` is told
    the validation split's losses before the first step, after each `validate_every` share of the run, and at its end;
    what it raises ends the run.

    Raises NotEnoughData (nothing left to train on), ModelFileError (base or start adapter), ResourceError (disk, or a
    method that this machine cannot run), LakeError (unreadable dataset), TrainingFailed (loss not a number).
    """
    from pawl.training import models_peft as models
    from pawl.training.stage_transformers import full_disk_told, processes, sharded
    from pawl.training.versions_torch import versions

    crew = processes()
    if crew.num_processes > 1 and spec.preference:
        raise ResourceError("the stage of preferences runs in one process: start one, or leave training.preference out")
    if sharded() and spec.ewc:
        raise ResourceError("ewc needs whole weights in every process: start one process, or leave training.ewc out")
    dataset = datasets.load(dataset_path)
    if spec.merge:
        _demand_mergeable(merge_with, base_dir)
    gathered = _texts(spec, texts)
    key = _key(dataset, spec, base_dir, start_adapter, earlier, gathered, merge_with)
    with crew.main_process_first():  # it clears the folder of another run's files, the others find it cleared
        finished = prepare_folder(out_dir, key)
    if finished is not None:
        return finished
    form = ChatFormat(base_dir)
    fitted = form.encode_all(dataset.train, spec.max_tokens, spec.long, weighted=spec.weighted)
    if not fitted.encoded:
        raise NotEnoughData(
            f"none of {len(dataset.train)} examples fits into {spec.max_tokens} tokens; raise training.max_tokens"
        )
    batches = schedule([len(e.input_ids) for e in fitted.encoded], spec.batch_size, spec.epochs, spec.seed)
    _keep_freed_memory()
    steps = math.ceil(len(batches) / crew.num_processes)  # of each process, for a schedule that counts them
    model, dtype = models.build(base_dir, spec, start_adapter, steps)
    parameters = sum(p.numel() for p in model.parameters() if p.requires_grad)
    need_disk(out_dir, parameters * _BYTES_A_PARAMETER, "training")
    run = Run(spec, form, model, dtype, out_dir, on_progress)
    held = _validation(form, dataset, spec)
    validate = run.validator(held, on_validation, validate_every)
    before = validate(0.0)
    run.hold(earlier, continued=start_adapter is not None)
    stages = [*run.pretrain(gathered)]
    examples = run.examples([[fitted.encoded[i] for i in b] for b in batches], validate)
    stages += [examples, *run.prefer(dataset, base_dir)]
    after = validate(1.0)
    notes = run.notes()
    if crew.num_processes > 1:
        notes.append(f"{crew.num_processes} processes: sums in another order differ in their last bits")
        model = run.rebuilt(model, base_dir, start_adapter, steps)
    if not crew.is_main_process:
        crew.wait_for_everyone()
        return _kept(out_dir)
    with full_disk_told(out_dir):
        models.save(model, base_dir, out_dir / "adapter")
        if spec.merge and merge_with:
            notes += _average(spec, out_dir, merge_with, base_dir)
        elif spec.merge:
            notes.append("merge was left out: none of training.merge.others serves an adapter yet")
        averaged = bool(spec.merge and merge_with)
        if (averaged and after) or (spec.merged and spec.method != "full"):
            # What is kept, and not what is in memory: that was never averaged, and may be in four bits.
            run.release()
            model = None
            gc.collect()
            model = models.served(base_dir, out_dir / "adapter")
        if averaged and after:
            notes.append(f"validation before averaging: {_mean(after):.4f} nats a completion token")
            after = run.losses(model, held)
        if spec.merged:
            models.merged(model, base_dir, out_dir / "merged")
        result = TrainResult(
            adapter_dir=str(out_dir / "adapter"),
            steps=sum(s.steps for s in stages),
            examples=len(fitted.encoded),
            dropped=fitted.dropped,
            truncated=fitted.truncated,
            split=fitted.split,
            tokens=sum(s.tokens for s in stages),
            completion_tokens=sum(fitted.encoded[i].completion_tokens for b in batches for i in b),
            seconds=sum(s.seconds for s in stages),
            tokens_per_s=examples.tokens / max(examples.seconds, 1e-6),
            loss_first=examples.loss_first,
            loss_last=examples.loss_last,
            parameters=parameters,
            dtype=str(dtype).removeprefix("torch."),
            resumed_at=examples.resumed_at,
            started_from=start_adapter.name if start_adapter else "",
            method=spec.method,
            stages=tuple(stages),
            notes=tuple(notes),
            validation_before=_mean(before),
            validation_after=_mean(after),
            versions=versions(),
            peak_mb=_peak_mb(),
        )
        write_whole(out_dir / "result.json", msgspec.json.encode(result))
    crew.wait_for_everyone()
    run.clear()
    return result


def _kept(out_dir: Path) -> TrainResult:
    return msgspec.json.decode((out_dir / "result.json").read_bytes(), type=TrainResult)


def _texts(spec: TrainingSpec, root: Path | None) -> Gathered | None:
    if spec.pretrain is None or root is None:
        return None
    from pawl.training.pretraining import gather

    return gather(spec.pretrain, root)


def _key(
    dataset: DatasetVersion,
    spec: TrainingSpec,
    base_dir: Path,
    start: Path | None,
    earlier: Sequence[Example],
    texts: Gathered | None,
    others: Sequence[Path],
) -> str:
    """What makes two runs the same."""
    digest = hashlib.sha256(run_key(dataset.fingerprint, spec, base_dir, start).encode())
    if spec.ewc:
        digest.update(msgspec.json.encode([e.id for e in earlier]))
    for text in texts.documents if texts else ():
        digest.update(hashlib.sha256(text.encode()).digest())
    if spec.merge:
        for other in others:
            digest.update(run_key("", spec, base_dir, other).encode())
    return digest.hexdigest()


def _validation(form: ChatFormat, dataset: DatasetVersion, spec: TrainingSpec) -> list[Encoded]:
    """A sample of the validation split, the same for every run over the same data."""
    rows = [e for e in dataset.examples if e.split == "validation"]
    random.Random(dataset.fingerprint).shuffle(rows)
    return form.encode_all(rows[:VALIDATION_EXAMPLES], spec.max_tokens).encoded


def _demand_mergeable(others: Sequence[Path], base_dir: Path) -> None:
    """ModelFileError now, and not after hours, where one of them is no plain LoRA of this base."""
    from pawl.training.merging_peft import load

    for other in others:
        named = load(other).config.get("base_model_name_or_path")
        if named != base_name(base_dir):
            raise ModelFileError(
                f"{other.name} was made for {named!r}, not for {base_name(base_dir)!r}: it cannot be averaged with "
                "what is trained; leave it out of training.merge.others"
            )


def _average(spec: TrainingSpec, out_dir: Path, others: Sequence[Path], base_dir: Path) -> list[str]:
    from pawl.training.merging_peft import merge_adapters

    assert spec.merge is not None
    rest = (1 - spec.merge.weight) / len(others)
    return [
        merge_adapters(
            [out_dir / "adapter", *others],
            [spec.merge.weight, *[rest] * len(others)],
            out_dir / "adapter",
            method=spec.merge.method,
            density=spec.merge.density,
            rank=spec.rank,
        )
    ]


def _mean(losses: list[float]) -> float | None:
    return sum(losses) / len(losses) if losses else None


def _peak_mb() -> float:
    import torch

    if torch.cuda.is_available():
        return float(torch.cuda.max_memory_allocated() / 2**20)
    scale = 2**20 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / scale


def _keep_freed_memory() -> None:
    """Let glibc keep what tensors free. By default each large one is given back to the kernel and faulted in anew at
    every step; keeping it makes a step on CPU a quarter faster."""
    trim_threshold, mmap_threshold = -1, -3
    with contextlib.suppress(OSError, AttributeError):
        libc = ctypes.CDLL("libc.so.6")
        libc.mallopt(mmap_threshold, 1 << 30)
        libc.mallopt(trim_threshold, (1 << 31) - 1)
