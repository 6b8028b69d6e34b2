"""`pawl summary`: a day of the whole fleet on one page, problems first."""

from __future__ import annotations

import time
from typing import Annotated

import msgspec
import typer

from pawl.improvement.workplace import Workplace
from pawl.settings import Settings


def summary(
    day: Annotated[str | None, typer.Option(help="like 2026-11-21, in PAWL_TIMEZONE; default: yesterday")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="one JSON object on stdout")] = False,
) -> None:
    """What happened to every agent in a day: answers, who gave them, quality against the baseline, cost, drift,
    rollouts and approvals; what needs somebody comes first. Today's is as far as it has come.

    The flow summarise_day keeps the same page each morning in .pawl/reports/ and in Prefect's UI.
    """
    from rich.console import Console
    from rich.markdown import Markdown

    from pawl.improvement import summarising
    from pawl.monitoring.day_summary import markdown

    made = summarising.gathered(Workplace(Settings(), ""), day, time.time())
    if as_json:
        typer.echo(msgspec.json.encode(made))
        return
    console = Console()
    if console.is_terminal:
        console.print(Markdown(markdown(made)))
    else:
        typer.echo(markdown(made))
