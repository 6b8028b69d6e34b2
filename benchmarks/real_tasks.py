"""How trivial answers, plain baselines and right answers score on real data: `python -m benchmarks.real_tasks`."""

from __future__ import annotations

import os
import random
import sys
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.claims import Claim, arguments
from benchmarks.fleet_baselines import figures
from benchmarks.real_rows import NONE, REAL, source
from benchmarks.real_rules import Rule, known_answer, rules
from pawl.qe.item import Grade, Item
from pawl.qe.task import Task
from pawl.qe.tasks import task_of

_HELP = """\
Grades answers to real items of each task of the fleet by its own oracle: a trivial one, a plain baseline, and the right
one (the fix, the label, the schema's own rules, tests that are known). The data are those of PAWL_DATA_DIR; items
without a known right answer are left out of all.
"""
_EPILOG = """\
scores are means over items, 0..1; in brackets percentiles of a bootstrap over sources (providers, projects, series,
groups of problems), 95 %.

--json: one line a task and rule; ours is the rule's score, peer that of the right answers, ratio the first over the
second, spread that ratio's 95 %.

exit code 0 when measured, 1 without PAWL_DATA_DIR; data sets that are not there are named on stderr.
"""
_SEED = 11
_SLOW = {"unit-test-generation", "coverage-analysis"}  # grading runs code
_MOST = {(True, True): 12, (True, False): 120, (False, True): 120, (False, False): 4000}  # by quick, slow
_AT_A_TIME = 2


@dataclass(frozen=True)
class Scored:
    """One answer to all items of a task, with its interval."""

    task: str
    data: str
    items: int
    sources: int
    rule: str
    score: float
    low: float
    high: float


def measure(task: Task, data: str, items: Sequence[Item], draws: int) -> list[Scored]:
    """The trivial answer, plain baselines and the right answers, in this order, on the items that have one."""
    right = [(i, a) for i in items if (a := known_answer(task, i)) is not None]
    asked = [i for i, _ in right]
    tried = (*rules(task), Rule("right answers", lambda _: [a for _, a in right]))
    made = []
    for rule in tried:
        grades = graded(task, asked, rule.answers(asked))
        about = (task.name, data, len(asked), len({i.source for i in asked}), rule.name)
        made.append(Scored(*about, *figures(asked, grades, draws)["score"]))
    return made


def graded(task: Task, items: Sequence[Item], answers: Sequence[str]) -> list[Grade]:
    """Each answer by the task's oracle; an item that it cannot grade is an error here."""

    def one(pair: tuple[Item, str]) -> Grade:
        grade = task.grade(pair[0].messages, pair[1], pair[0].truth)
        assert grade is not None, pair
        return grade

    with ThreadPoolExecutor(1 if task.instant else _AT_A_TIME) as pool:
        return list(pool.map(one, zip(items, answers, strict=True)))


def claims(made: Sequence[Scored]) -> list[Claim]:
    """Each rule's score beside that of the right answers, the last of its task."""
    best = {s.task: s.score for s in made}
    return [
        Claim(
            claim=f"{s.task}, {s.data}: {s.rule}",
            ours=s.score,
            peer=best[s.task],
            ratio=s.score / best[s.task],
            spread=(s.low / best[s.task], s.high / best[s.task]),
            unit="mean score of an item",
        )
        for s in made
        if s.rule != "right answers"
    ]


def main() -> int:
    """Entry point; returns the exit code."""
    parser = arguments("real_tasks", _HELP, _EPILOG, "at most 120 items a task, 12 where code is run; 200 draws")
    parser.add_argument("--task", action="append", choices=sorted(REAL), help="this one alone; may be repeated")
    args = parser.parse_args()
    errors = Console(stderr=True, highlight=False, soft_wrap=True, markup=False)
    folder = os.environ.get("PAWL_DATA_DIR")
    if not folder or not Path(folder).is_dir():
        errors.print("PAWL_DATA_DIR names no folder: there is no real data to measure on")
        return 1
    made: list[Scored] = []
    for task, data, items in _asked(Path(folder), args.task or list(REAL), args.quick, errors):
        errors.print(f"{task.name}: {len(items)} items")
        made += measure(task, data, items, 200 if args.quick else 2000)
    if args.json:
        for claim in claims(made):
            print(claim.json(), flush=True)
        return 0
    Console().print(_table(made))
    for name, why in NONE.items():
        errors.print(f"{name}: {why}")
    return 0


def _asked(
    data: Path, names: Sequence[str], quick: bool, errors: Console
) -> Iterator[tuple[Task, str, Sequence[Item]]]:
    with tempfile.TemporaryDirectory() as scratch:
        for name in names:
            spec = source(name, data, Path(scratch))
            if spec is None:
                errors.print(f"{name}: no {REAL[name].file} in PAWL_DATA_DIR")
                continue
            task = task_of(name)
            items, most = list(task.items(spec)), _MOST[quick, name in _SLOW]
            yield task, REAL[name].data, random.Random(_SEED).sample(items, most) if len(items) > most else items


def _table(made: Sequence[Scored]) -> Table:
    """For people."""
    table = Table(title="Real data", title_justify="left")
    for column in ("task", "data", "items of sources", "answer", "score", "95 %"):
        numbers = column in ("score", "95 %")
        table.add_column(column, justify="right" if numbers else "left", no_wrap=numbers or column == "task")
    last = ""
    for s in made:
        head = ("", "", "") if s.task == last else (s.task, s.data, f"{s.items:,} of {s.sources}")
        table.add_row(*head, s.rule, f"{s.score:.3f}", f"{s.low:.3f} to {s.high:.3f}")
        last = s.task
    return table


if __name__ == "__main__":
    sys.exit(main())
