"""Rating in a terminal, and what a review says, as tables. Text of models is shown without what a terminal obeys."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import typer
from rich.console import Console, Group
from rich.panel import Panel
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from pawl.errors import NotAllowed
from pawl.review import verdicts as review
from pawl.review.agreement import Estimate
from pawl.review.calibration import Calibration, NotCalibrated, calibrate
from pawl.review.files import Reviews
from pawl.review.readable import corrected, is_json, laid_out, readable, visible
from pawl.review.sample import Progress, Rating, Sample, Sheet, Shown, Verdict, next_item, progress

VERDICTS: dict[str, Verdict] = {"1": "right", "2": "wrong", "3": "cannot_say"}
WORDS = {"right": "right", "wrong": "wrong", "cannot_say": "can't say"}
ASKED = "1 right, 2 wrong, 3 can't say (a comment may follow), q to stop"


def rate(
    reviews: Reviews,
    sheet: Sheet,
    rater: str,
    console: Console,
    ask: Callable[[str], str],
    edit: Callable[[str], str | None],
    clock: Callable[[], float] = time.time,
) -> Progress:
    """Deal items until none is left or the rater stops. Each rating is on the disk before the next item is shown.

    `ask`: prints the question and returns a line. `edit`: opens an editor on a text; None where nothing was saved.
    """
    while True:
        sheet = reviews.sheet(sheet.agent, sheet.id)
        ratings = reviews.ratings(sheet.agent, sheet.id)
        far = progress(sheet, ratings, rater)
        item = next_item(sheet, ratings, rater)
        if item is None:
            return far
        console.print(_item(item, sheet.question, far))
        said = _verdict(ask, console)
        if said is None:
            return far
        verdict, comment = said
        correction = _correction(item.answer, ask, edit, console) if verdict == "wrong" else None
        try:
            reviews.rate(
                sheet.agent,
                sheet.id,
                Rating(
                    item=item.id,
                    rater=rater,
                    verdict=verdict,
                    at=clock(),
                    correction=correction,
                    comment=comment,
                ),
            )
        except NotAllowed as e:  # somebody else at the same name, or the person was erased meanwhile
            console.print(Text(str(e), "yellow"))


def _item(item: Shown, question: str, far: Progress) -> Group:
    turns = [Panel(Text(readable(t.text)), title=Text(t.role), title_align="left", style="dim") for t in item.prompt]
    answer = Panel(Text(readable(item.answer)), title="answer", title_align="left", border_style="bold")
    head = Rule(f"{far.mine + 1} of {far.mine + far.left}", align="left")
    return Group(head, *turns, answer, Text(question, "bold"))


def _verdict(ask: Callable[[str], str], console: Console) -> tuple[Verdict, str] | None:
    while True:
        first, _, comment = ask(ASKED).strip().partition(" ")
        if first.lower() in ("q", "quit"):
            return None
        if first in VERDICTS:
            return VERDICTS[first], comment.strip()
        console.print(f"Type {ASKED}.", markup=False)


def _correction(
    answer: str, ask: Callable[[str], str], edit: Callable[[str], str | None], console: Console
) -> str | None:
    typed = ask("corrected answer: type it, e for an editor, Enter for none")
    before = laid_out(answer) if is_json(answer) else answer
    while True:
        if typed.strip().lower() == "e":
            typed = (edit(before) or "").rstrip("\n")
        try:
            return corrected(answer, typed)
        except ValueError as e:
            console.print(Text(f"{e}.", "yellow"))
            before, typed = typed, ask("e to edit it again, Enter for no correction")


def report(console: Console, sample: Sample, ratings: Sequence[Rating], of_calibration: Callable[[], Group]) -> None:
    """Everything that a review says."""
    sheet = sample.sheet
    found = review.accuracy(sample, ratings)
    console.print(
        f"Review {sheet.id} of {sheet.agent}, drawn {_day(sheet.at)}: {len(sheet.items)} answers, "
        f"{found.raters} rater(s), {found.waiting} answer(s) wait for more ratings.",
        highlight=False,
    )
    if found.right + found.wrong == 0:
        console.print("Nothing is decided yet: `pawl review rate` or `pawl review serve` collects ratings.")
        return
    console.print(
        f"Right: {_share(Estimate(found.estimate, found.lower, found.upper))} of the agent's answers. In the sample "
        f"{found.right} right, {found.wrong} wrong, {found.undecided} undecided.\n",
        highlight=False,
    )
    for by, title in (("band", "By quality"), ("scenario", "By scenario class"), ("arm", "By arm")):
        console.print(_groups(title, review.groups(sample, ratings, by)))  # type: ignore[arg-type]
    console.print(_groups("By stratum", review.groups(sample, ratings, "stratum")))
    console.print(_agreement(sheet, ratings))
    console.print(_disagreements(sheet, ratings))
    console.print(of_calibration())


def _groups(title: str, rows: Sequence[review.Row]) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold")
    table.add_column("")
    for name in ("answers", "right", "wrong", "undecided", "waiting", "share right, 95 %"):
        table.add_column(name, justify="right", no_wrap=True)
    for r in rows:
        counts = (f"{r.population:,}", *map(str, (r.right, r.wrong, r.undecided, r.waiting)))
        table.add_row(Text(visible(r.name)), *counts, _share(r.share))
    return table


def _agreement(sheet: Sheet, ratings: Sequence[Rating]) -> Table:
    table = Table(title="Agreement of the raters", title_justify="left", title_style="bold")
    for name in ("measure", "value", "95 %"):
        table.add_column(name)
    names = {"raw": "same verdict", "kappa": "Cohen's kappa", "alpha": "Krippendorff's alpha"}
    for name, e in review.agreements(sheet, ratings).items():
        value = "not defined" if e.value is None else f"{e.value:.2f}"
        span = "" if e.lower is None or e.upper is None else f"{e.lower:.2f} to {e.upper:.2f}"
        table.add_row(names[name], value, span)
    unsure = sum(r.verdict == "cannot_say" for r in ratings)
    table.caption = f'{unsure} of {len(ratings)} ratings are "can\'t say" and count as missing'
    return table


def _disagreements(sheet: Sheet, ratings: Sequence[Rating]) -> Group:
    items = {i.id: i for i in sheet.items}
    found = review.disagreements(sheet, ratings)
    head = Text(f"Disagreements: {len(found)}", "bold")
    lines: list[Text] = []
    for identity, given in found:
        turns = [t.text for t in items[identity].prompt if t.role == "user"] or [""]
        lines.append(Text(f"{identity}  {visible(' '.join(turns[-1].split()))[:90]}"))
        for r in given:
            why = f": {visible(' '.join(r.comment.split()))}" if r.comment else ""
            lines.append(Text(f"    {r.rater} says {WORDS[r.verdict]}{why}"))
    return Group(head, *lines)


def calibration(found: Calibration | NotCalibrated) -> Group:
    """The curve as a small table, and whether it helps."""
    head = Text("What the quality score is worth", "bold")
    if isinstance(found, NotCalibrated):
        return Group(head, Text(f"Not calibrated: {found.reason}."))
    table = Table()
    for name in ("quality score", "share that raters call right"):
        table.add_column(name, justify="right")
    for x in (0.0, 0.25, 0.5, 0.75, 0.9, 1.0):
        table.add_row(f"{x:.2f}", f"{calibrate(found.knots, x):.2f}")
    verdict = "it predicts better than the score" if found.helps else "it predicts no better than the score itself"
    line = (
        f"Mean squared error {found.brier_before:.3f} before, {found.brier_after:.3f} after, on pairs left out "
        f"({found.pairs} pairs, {found.folds} folds): {verdict}."
    )
    return Group(head, table, Text(line))


def _share(e: Estimate) -> str:
    if e.value is None or e.lower is None or e.upper is None:
        return "unknown"
    return f"{100 * e.value:.0f} % [{100 * e.lower:.0f}, {100 * e.upper:.0f}]"


def _day(at: float) -> str:
    return time.strftime("%Y-%m-%d", time.gmtime(at))


def editor(text: str) -> str | None:
    """The text as it was saved in the editor that VISUAL or EDITOR names; None where it was not."""
    import click

    return click.edit(text, extension=".json" if is_json(text) else ".txt")


def prompt_line(question: str) -> str:
    """A line from the terminal; "q" at its end."""
    try:
        return str(typer.prompt(question, default="", show_default=False))
    except typer.Abort:
        return "q"
