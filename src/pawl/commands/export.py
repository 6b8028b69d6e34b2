"""`pawl export`: a version leaves, without lock-in."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pawl.settings import Settings
from pawl.training.round_trip import Quantize, To


def export(
    agent: Annotated[str, typer.Argument(help="the agent's name in fleet.yaml")],
    to: Annotated[
        To, typer.Option(help="adapter: as peft and vLLM load it; merged: one model; gguf: for llama.cpp and Ollama")
    ],
    out: Annotated[Path, typer.Option(help="the folder to make; it is whole or absent")],
    version: Annotated[str, typer.Option(help="the version's number in the registry, or an alias")] = "champion",
    quantize: Annotated[Quantize, typer.Option(help="weights of a GGUF file; q8_0 is half as large")] = "q8_0",
) -> None:
    """Write a version as files of its own, with a card: data, metrics, licence, lineage.

    A merged model and a GGUF file are loaded again and must answer as the base model with the adapter does.
    Example: pawl export functional-negative --to gguf --quantize q8_0 --out exported/fn
    """
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    from pawl import bootstrap
    from pawl.improvement.exporting import export as write
    from pawl.improvement.workplace import Workplace
    from pawl.training.round_trip import told

    settings = Settings()
    place = Workplace(settings, bootstrap.fleet(settings).agent(agent).name)
    columns = (TextColumn("{task.description:40}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        bar = progress.add_task("export")

        def tell(step: str, done: int, total: int, note: str) -> None:
            progress.update(bar, description=f"{step} {note}".strip()[:40], completed=done, total=total)

        made = write(place, version, to, out, tell, quantize)
    if made.card.round_trip is not None:
        typer.echo(told(made.card.round_trip))
    typer.echo(f"{made.card.name} as {to}, {made.bytes / 1e6:.0f} MB: {made.folder}")
