"""What trivial rules get on the fleet's tasks: `python -m benchmarks.fleet_baselines`."""

from __future__ import annotations

import os
import random
import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.claims import Claim, arguments
from benchmarks.fleet_rules import RULES
from pawl.fleet.source import TaskSourceSpec
from pawl.qe.item import Grade, Item
from pawl.qe.task import Task
from pawl.qe.tasks import task_of

_HELP = """\
Grades constant answers, simple rules and the words of the code alone on the tasks of the fleet whose truth comes with
the item: what a model must beat. On the default sources of the tasks, and on the data sets in PAWL_DATA_DIR.
"""
_EPILOG = """\
figures, 0..1, better is more:
  score                 mean over items
  <metric>              mean over the items that have it
  score over <rule>     mean difference of the scores, item by item; -1..1
  precision/recall/f1   of everything but the one class that means that nothing is wrong (stable, secure, ok, clean):
                        precision counts what was named rightly, recall what was there

intervals:
  95 %, percentiles of a bootstrap over sources (projects, series, modules): items of one source are no independent
  draws

exit code 0 when measured; data sets that are not there are named on stderr.
"""
_DATA = {
    "flaky-detection": "flaky.jsonl.gz",
    "security-review": "security_sven.jsonl.gz",
    "performance-analyzer": "perf_nab.jsonl.gz",
}
_NOTHING_WRONG = {"stable", "secure", "ok", "clean"}
_SEED = 5


@dataclass(frozen=True)
class Figure:
    """One figure of one rule on one source, with its interval."""

    task: str
    source: str
    rule: str
    items: int
    sources: int
    figure: str
    value: float
    low: float
    high: float


def claims(made: Sequence[Figure]) -> list[Claim]:
    """Each rule's score beside that of the constant answer, the first of its task; the spread is the rule's interval
    over that constant."""
    constant = {(f.task, f.source): f.value for f in reversed(made) if f.figure == "score"}
    return [
        Claim(
            claim=f"{f.task}, {f.source}: {f.rule}",
            ours=f.value,
            peer=constant[f.task, f.source],
            ratio=f.value / constant[f.task, f.source],
            spread=(f.low / constant[f.task, f.source], f.high / constant[f.task, f.source]),
            unit="mean score of an item",
        )
        for f in made
        if f.figure == "score" and f.value != constant[f.task, f.source]
    ]


def main() -> int:
    """Entry point; returns the exit code."""
    parser = arguments("fleet_baselines", _HELP, _EPILOG, "at most 120 items of a source, 200 draws in place of 2,000")
    args = parser.parse_args()
    errors = Console(stderr=True, highlight=False, soft_wrap=True)
    made: list[Figure] = []
    for name, kind, spec in _sources(errors):
        task = task_of(name)
        items = list(task.items(spec))
        if args.quick and len(items) > 120:
            items = random.Random(_SEED).sample(items, 120)
        errors.print(f"{name}, {kind}: {len(items)} items", markup=False)
        earlier: dict[str, list[Grade]] = {}
        for rule, answers in RULES[name].items():
            grades = _graded(task, items, answers(items))
            found = figures(items, grades, draws=200 if args.quick else 2000, earlier=earlier)
            earlier[rule] = grades
            about = (len(items), len({i.source for i in items}))
            made += [Figure(name, kind, rule, *about, figure, *found[figure]) for figure in found]
    if args.json:
        for claim in claims(made):
            print(claim.json(), flush=True)
        return 0
    Console().print(_table(made))
    return 0


def figures(
    items: Sequence[Item], grades: Sequence[Grade], draws: int, earlier: Mapping[str, Sequence[Grade]] | None = None
) -> dict[str, tuple[float, float, float]]:
    """Value, low and high of each figure: shares of sums, drawn over sources; gains over `earlier` rules in pairs."""
    parts = [_parts(g) for g in grades]
    for rule, others in (earlier or {}).items():
        for part, mine, other in zip(parts, grades, others, strict=True):
            part[f"score over {rule}"] = (mine.score - other.score, 1.0)
    sources = sorted({i.source for i in items})
    at = {s: n for n, s in enumerate(sources)}
    rng = np.random.default_rng(_SEED)
    # How often each source is in each draw.
    counts = rng.multinomial(len(sources), [1 / len(sources)] * len(sources), size=draws)
    sums: dict[str, np.ndarray] = defaultdict(lambda: np.zeros((len(sources), 2)))
    for item, part in zip(items, parts, strict=True):
        for figure, pair in part.items():
            sums[figure][at[item.source]] += pair
    found = {}
    for figure, by_source in sums.items():
        above, below = by_source.T
        if not below.sum():
            continue
        under = counts @ below
        drawn = (counts @ above)[under > 0] / under[under > 0]
        low, high = np.percentile(drawn, [2.5, 97.5])
        found[figure] = (float(above.sum() / below.sum()), float(low), float(high))
    return found


def _parts(grade: Grade) -> dict[str, tuple[float, float]]:
    """What an item adds to numerator and denominator of each figure."""
    found = {"score": (grade.score, 1.0)} | {m: (v, 1.0) for m, v in grade.metrics.items()}
    there, named = grade.label not in _NOTHING_WRONG, grade.said not in _NOTHING_WRONG
    right = float(there and named and grade.said == grade.label)
    found["precision of classes"] = (right, float(named))
    found["recall of classes"] = (right, float(there))
    found["f1 of classes"] = (2 * right, float(there) + float(named))
    return found


def _graded(task: Task, items: Sequence[Item], answers: Sequence[str]) -> list[Grade]:
    made = []
    for item, answer in zip(items, answers, strict=True):
        grade = task.grade(item.messages, answer, item.truth)
        assert grade is not None and grade.conforms, (item.id, answer)
        made.append(grade)
    return made


def _sources(errors: Console) -> list[tuple[str, str, TaskSourceSpec]]:
    folder = os.environ.get("PAWL_DATA_DIR")
    found = []
    for name in RULES:
        found.append((name, task_of(name).kinds[0], TaskSourceSpec()))
        if name not in _DATA:
            continue
        path = Path(folder or ".") / _DATA[name]
        if folder and path.exists():
            found.append((name, path.name.partition(".")[0], TaskSourceSpec(kind="jsonl", location=str(path))))
        else:
            errors.print(f"{name}: no {_DATA[name]} in PAWL_DATA_DIR, its default source alone", markup=False)
    return found


def _table(made: Sequence[Figure]) -> Table:
    """For people."""
    table = Table(title="Rules that know nothing", title_justify="left")
    for column in ("task", "source", "items", "rule", "figure", "value", "95 %"):
        table.add_column(column, justify="right" if column in ("items", "value", "95 %") else "left")
    last: tuple[str, ...] = ()
    for f in made:
        head = (f.task, f.source, f"{f.items} of {f.sources}", f.rule)
        shown = tuple("" if head[: n + 1] == last[: n + 1] else h for n, h in enumerate(head))
        table.add_row(*shown, f.figure, f"{f.value:.3f}", f"{f.low:.3f} to {f.high:.3f}")
        last = head
    return table


if __name__ == "__main__":
    sys.exit(main())
