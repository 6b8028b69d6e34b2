"""`pawl report`: what was saved, and how independent of the cloud the fleet is."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pawl.settings import Settings

app = typer.Typer(help="Reports on a month: money and independence.", rich_markup_mode=None)

Month = Annotated[
    str,
    typer.Option(
        "--month",
        help="like 2026-11, in PAWL_TIMEZONE; default: the last whole month, or this one where it is empty",
    ),
]
Agent = Annotated[str, typer.Option("--agent", help="of one agent; default: the fleet")]
Html = Annotated[
    Path | None, typer.Option("--html", help="where the page goes; default: reports/ under PAWL_HOME", dir_okay=False)
]
AsJson = Annotated[bool, typer.Option("--json", help="one JSON object instead of text")]
Mlflow = Annotated[bool, typer.Option("--mlflow/--no-mlflow", help="record it on MLflow too: figures, page, criteria")]


@app.callback(invoke_without_command=True)
def report(
    context: typer.Context, month: Month = "", agent: Agent = "", html: Html = None, as_json: AsJson = False,
    mlflow: Mlflow = True,
) -> None:  # fmt: skip
    """What a month cost, what it saved against the cloud, and what may be decided by it. Alone: as `month`."""
    if context.invoked_subcommand is None:
        of_month(month, agent, html, as_json, mlflow)
        return
    for option in context.command.params:  # the subcommand would never hear of it
        source = context.get_parameter_source(option.name or "")
        if source is not None and source.name == "COMMANDLINE":
            given = " or ".join((*option.opts, *option.secondary_opts))
            raise typer.BadParameter(f"put it after `{context.invoked_subcommand}`", param_hint=given)


@app.command("month")
def of_month(
    month: Month = "", agent: Agent = "", html: Html = None, as_json: AsJson = False, mlflow: Mlflow = True
) -> None:
    """Costs, savings, independence and the go / no-go tables of one month, as text, as a page and on MLflow.

    Everything is computed from the lake: what clients got, what the cloud would have taken for it by its list prices,
    and what came of it. A criterion is green where the month shows it, red where it shows the opposite, grey where it
    was not measured or too little was. What the machines cost is said in fleet.yaml (`costs`); without it no share is
    called saved. Where MLflow is not up, that is said and the page alone is written.

    Example: pawl report month --month 2026-11 --html november.html
    """
    import msgspec

    from pawl.errors import ServerNotUp
    from pawl.improvement import monthly
    from pawl.monitoring.independence_page import text, write

    settings = Settings()
    made = monthly.report(settings, month or None, agent, registry=mlflow)
    r = made.figures
    name = f"independence-{r.month}{'-' + r.agent if r.agent else ''}.html"
    page = write(made.figures, made.phases, made.generated_at, html or settings.reports_dir / name)
    link, problem = "", ""
    if mlflow:
        try:
            link = monthly.log(settings, made, page)
        except ServerNotUp as e:
            problem = f"not on MLflow: {e}"
    if as_json:
        typer.echo(msgspec.json.encode({"report": made, "page": str(page), "mlflow": link or None}))
    else:
        typer.echo(text(made.figures, made.phases))
        typer.echo(f"page    {page}")
        if link:
            typer.echo(f"MLflow  {link}")
    if problem:
        typer.echo(f"pawl: {problem}", err=True)
