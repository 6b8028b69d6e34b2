"""`pawl drift`: whether an agent's traffic still is what it was when its champion took over."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from pawl.improvement.workplace import Workplace
from pawl.settings import Settings


def drift(
    agent: Annotated[str, typer.Argument(help="the agent's name in fleet.yaml")],
    as_json: Annotated[bool, typer.Option("--json", help="one JSON object on stdout")] = False,
    plot: Annotated[Path | None, typer.Option(help="draw the evidence over time into this SVG file")] = None,
) -> None:
    """Look for drift of an agent's requests, answers, quality and feedback now; nothing is recorded or told.

    What was usual is the traffic before the present champion took over (drift.reference_days in fleet.yaml). The
    evidence of a kind is an e-value: about 1 while nothing changes; at the figure given beside it the kind has drifted.
    However often it is looked at, the chance that a champion's watch ever begins to alarm without a change is
    drift.alpha (5 %), over all kinds together. The flow watch_quality looks every quarter of an hour, records, and
    tells: docs/drift.md. It must have looked once: its first look is what later ones are judged from.
    """
    from rich.console import Console
    from rich.table import Table

    from pawl.improvement import watching
    from pawl.monitoring import drift_told

    settings = Settings()
    place = Workplace(settings, agent)
    _ = place.agent  # a name that is none of the fleet's is said so before anything is read
    watch, record, watched = watching.preview(place, time.time())
    if plot is not None:
        from pawl.monitoring.drift_plot_matplotlib import drawn

        plot.write_text(drawn(watch))
    if as_json:
        more = {"drifting": record.drifting, "known": record.known, "watched": watched}
        typer.echo(msgspec.json.encode({**msgspec.to_builtins(record), **more}))
        return
    typer.echo(drift_told.headline(record, watched))
    table = Table(box=None)
    for column in ("kind", "", "evidence", "before", "now", "what"):
        table.add_column(column, justify="right" if column in ("evidence", "before", "now") else "left")
    for row in drift_told.rows(record):
        table.add_row(*row)
    Console(soft_wrap=True).print(table)
    typer.echo(f"seen up to {drift_told.moment(record.through)} UTC; what came of answers is waited for first")
