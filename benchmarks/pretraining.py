"""Continued pre-training: what a stage on API documents does to the task that is learnt after it.

    python -m benchmarks.pretraining [--quick] [--json]

Real tasks (negative tests for operations of botocore), the built-in 135M base model, LoRA. Each seed trains twice on
the same examples in the same order: once after a stage on documents of other operations (method, path, parameter
schema), once without. Both are measured on the same validation examples, of services that no example is from.
`ours` is the loss with the stage, `peer` without, in nats a completion token: below 1 the stage helped. The time
that the stage takes is printed beside it; the run without it is not given that time.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import sys
import tempfile
from pathlib import Path

from rich.console import Console

from benchmarks.claims import Claim, table
from benchmarks.training import ALPHA, BATCH, MAX_TOKENS, RANK, RATE, base_dir, write_data

EXAMPLES = {True: 24, False: 160}
HELD = {True: 12, False: 60}
DOCUMENTS = {True: 40, False: 400}
SEEDS = {True: (17,), False: (17, 18, 19)}


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer examples and documents, one seed")
    parser.add_argument("--json", action="store_true", help="one line a claim")
    given = parser.parse_args()
    say = Console(stderr=True).print
    pairs = []
    with tempfile.TemporaryDirectory(prefix="pawl-bench-") as made:
        folder = Path(made)
        write_data(folder, EXAMPLES[given.quick], HELD[given.quick])
        write_texts(folder, DOCUMENTS[given.quick])
        for seed in SEEDS[given.quick]:
            without, seconds, _ = loss(folder, seed, pretrained=False)
            say(f"seed {seed}: {without:.4f} without, {seconds:.0f} s of training")
            after, longer, note = loss(folder, seed, pretrained=True)
            say(f"seed {seed}: {after:.4f} with the stage, {longer:.0f} s of training; {note}")
            pairs.append((after, without))
    ratios = [a / b for a, b in pairs]
    claim = Claim(
        "validation loss with continued pre-training",
        ours=statistics.median(a for a, _ in pairs),
        peer=statistics.median(b for _, b in pairs),
        ratio=statistics.median(ratios),
        spread=(min(ratios), max(ratios)),
        unit="nats/token",
    )
    if given.json:
        print(claim.json())
    else:
        Console().print(table([claim]))
    return 0


def write_texts(folder: Path, count: int) -> None:
    """API documents of operations that no example is about, one a file."""
    from pawl.curation import dataset as datasets
    from pawl.fleet.spec import TaskSourceSpec
    from pawl.qe.operations import sources

    asked = {e.id for e in datasets.load(folder / "data.json").examples}
    others = [o for o in sources.load(TaskSourceSpec()) if o.id not in asked]
    (folder / "docs").mkdir()
    for o in random.Random(5).sample(others, count):
        text = f"{o.method} {o.path}\n{o.id}\n{json.dumps(o.schema, indent=1)}\n"
        (folder / "docs" / f"{o.id}.txt").write_text(text)


def loss(folder: Path, seed: int, *, pretrained: bool) -> tuple[float, float, str]:
    """(validation loss after training, seconds of training, what the stage says of itself)."""
    from pawl.fleet.training import PretrainSpec, TrainingSpec
    from pawl.training.peft_trainer import train

    spec = TrainingSpec(
        rank=RANK,
        alpha=ALPHA,
        learning_rate=RATE,
        batch_size=BATCH,
        seed=seed,
        max_tokens=MAX_TOKENS,
        pretrain=PretrainSpec(files=("docs/*.txt",)) if pretrained else None,
    )
    with tempfile.TemporaryDirectory(prefix="pawl-bench-run-") as out:
        result = train(
            folder / "data.json",
            spec,
            base_dir(),
            Path(out),
            start_adapter=None,
            on_progress=lambda _: None,
            texts=folder,
        )
    assert result.validation_after is not None
    stage = next((s.note for s in result.stages if s.name == "pretraining"), "")
    return result.validation_after, result.seconds, stage


if __name__ == "__main__":
    sys.exit(main())
