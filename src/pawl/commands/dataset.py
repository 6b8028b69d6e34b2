"""`pawl dataset`: what models learn from, made and looked at."""

from __future__ import annotations

from typing import Annotated

import typer

from pawl.settings import Settings

app = typer.Typer(no_args_is_help=True, help="Dataset versions: prepare, list, show, compare.")

Name = Annotated[str, typer.Argument(help="as `pawl dataset list` has it; enough of it to tell it from the others")]


@app.command("list")
def listed(agent: Annotated[str, typer.Option(help="of this agent only")] = "") -> None:
    """All dataset versions of this machine, the newest first."""
    import datetime as dt

    from pawl.curation import dataset as datasets

    folder = Settings().datasets_dir
    files = sorted(filter(datasets.is_dataset, folder.glob("*.json")), key=lambda p: p.stat().st_mtime, reverse=True)
    shown = 0
    for path in files:
        made = datasets.load(path)
        if agent in ("", made.agent):
            shown += 1
            splits = ", ".join(f"{n:,} {name}" for name, n in made.by_split.items())
            red = len(made.card.red) if made.card else 0
            day = dt.datetime.fromtimestamp(path.stat().st_mtime, dt.UTC).strftime("%Y-%m-%d %H:%M")
            typer.echo(f"{path.stem:50} {day}  {splits}, {len(made.pairs):,} pairs, {red} red on its card")
    if not shown:
        typer.echo("none yet; `pawl dataset prepare AGENT` makes one from what is recorded")


@app.command("show")
def show(name: Name) -> None:
    """The datasheet: splits, sources, what each step dropped and why, readiness, validation."""
    from pawl.curation import dataset as datasets
    from pawl.curation.datasheet import datasheet
    from pawl.improvement.preparing import reports_of

    path = datasets.find(Settings().datasets_dir, name)
    typer.echo(datasheet(datasets.load(path), reports_of(path)), nl=False)


@app.command("diff")
def diff(before: Name, after: Name) -> None:
    """What changed between two versions: examples, splits, classes, quality."""
    from pawl.curation import dataset as datasets
    from pawl.curation.datasheet import diff as compare
    from pawl.curation.datasheet import told

    folder = Settings().datasets_dir
    one, two = (datasets.find(folder, n) for n in (before, after))
    typer.echo(told(compare(datasets.load(one), datasets.load(two)), one.stem, two.stem))


@app.command("prepare")
def prepare(
    agent: Annotated[str, typer.Argument(help="the agent's name in fleet.yaml")],
    days: Annotated[float, typer.Option(help="how far back; 0: everything")] = 0,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="compute everything, print the datasheet, keep nothing")
    ] = False,
) -> None:
    """Collect, validate and prepare one agent's dataset now, as the weekly flow does; print its datasheet.

    Example: pawl dataset prepare functional-negative --days 30 --dry-run
    """
    import time

    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    from pawl import bootstrap
    from pawl.curation import dataset as datasets
    from pawl.curation.datasheet import datasheet
    from pawl.improvement import preparing, steps
    from pawl.improvement.workplace import Workplace

    settings = Settings()
    place = Workplace(settings, bootstrap.fleet(settings).agent(agent).name)
    since = time.time() - days * 86_400 if days else None
    columns = (TextColumn("{task.description:32}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        bar = progress.add_task("collecting")

        def tell(step: str, done: int, total: int, note: str) -> None:
            progress.update(bar, description=f"{step} {note}".strip()[:32], completed=done, total=total)

        found = steps.collect(place, since, None)
        if dry_run:
            made, reports = preparing.rehearse(place, found, place.agent.data, tell)
        else:
            path = preparing.prepare(place, found, place.agent.data, tell)
            made, reports = datasets.load(path), preparing.reports_of(path)
    typer.echo(datasheet(made, reports), nl=False)
    typer.echo("\ndry run: nothing was kept" if dry_run else f"\nwritten to {path}")
