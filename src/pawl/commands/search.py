"""`pawl search`: better training settings for an agent, as a proposal."""

from __future__ import annotations

from typing import Annotated

import typer

from pawl.settings import Settings


def search(
    agent: Annotated[str, typer.Argument(help="the agent's name in fleet.yaml")],
    dataset: Annotated[str, typer.Option(help="as `pawl dataset list` has it; not given: the newest")] = "",
    minutes: Annotated[float, typer.Option(help="no trial begins after; 0: as search.minutes says", min=0)] = 0,
    trials: Annotated[int, typer.Option(help="in all, the present settings among them; 0: search.trials", min=0)] = 0,
) -> None:
    """Try training settings by their validation loss and write the best as a proposal; fleet.yaml stays as it is.

    The first trial has the present settings. Killed or stopped, the same command goes on where it was.
    Example: pawl search functional-negative --minutes 60
    """
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    from pawl import bootstrap
    from pawl.curation import dataset as datasets
    from pawl.improvement.searching import newest_dataset
    from pawl.improvement.searching import search as run
    from pawl.improvement.workplace import Workplace
    from pawl.training.search import Trial
    from pawl.training.search_report import conclusion, limits, table

    settings = Settings()
    place = Workplace(settings, bootstrap.fleet(settings).agent(agent).name)
    folder = settings.datasets_dir
    path = datasets.find(folder, dataset) if dataset else newest_dataset(folder, agent)
    shown = Console(stderr=True)
    columns = (TextColumn("{task.description:48}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=shown) as progress:
        bar = progress.add_task("preparing", total=None)

        def tell(name: str, done: int, total: int, note: str) -> None:
            progress.update(bar, description=f"{name} {note}"[:48], completed=done, total=total)

        def tell_trial(t: Trial) -> None:
            loss = f"validation loss {t.loss:.4f}" if t.loss is not None else t.why
            shown.print(f"trial {t.number}: {t.state}, {loss}", markup=False, highlight=False)

        done = run(place, path, tell, trials=trials or None, minutes=minutes or None, on_trial=tell_trial)
    rows = table(done.report)
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    for row in rows:
        typer.echo("  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip())
    typer.echo(f"\n{conclusion(done.report)}")
    for line in limits(done.report):
        typer.echo(f"  {line}")
    if done.diff:
        typer.echo(f"\nNothing was changed. To take it over, change {settings.fleet}:\n\n{done.diff}")
    typer.echo(f"proposal: {done.proposal}\nplot: {done.plot}")
