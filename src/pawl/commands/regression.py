"""`pawl regression`: the live failures that stay tests for good, and which of them may never fail again."""

from __future__ import annotations

import time
from typing import Annotated

import typer

from pawl import bootstrap
from pawl.commands.acting_key import acting_key
from pawl.settings import Settings

app = typer.Typer(no_args_is_help=True, help="The regression suite of an agent: live failures that stay tests.")
Agent = Annotated[str, typer.Argument(help="the agent's name in fleet.yaml")]
SHOWN = 90  # characters of a prompt's own part


@app.command("list")
def listed(agent: Agent) -> None:
    """All items, those that must pass first: id, source, how it failed, since when, the beginning of the task."""
    from pawl.curation import regression

    settings = Settings()
    suite = regression.load(settings.regression_dir, bootstrap.fleet(settings).agent(agent).name)
    for item in sorted(suite.items, key=lambda i: (not i.must_pass, i.added_at, i.id)):
        mark = "MUST PASS " if item.must_pass else ""
        since = time.strftime("%Y-%m-%d", time.gmtime(item.added_at))
        task = " ".join(item.content.split())[:SHOWN]
        typer.echo(f"{item.id[:12]}  {mark}{item.source}  {item.cluster or 'unnamed'}  since {since}  {task}")
    if not suite.items:
        typer.echo("the suite is empty; preparing a dataset fills it with what local models got wrong")


@app.command("must-pass")
def must_pass(
    agent: Agent,
    items: Annotated[list[str], typer.Argument(help="ids, or enough of their beginning to tell them apart")],
    off: Annotated[bool, typer.Option("--off", help="take the mark away")] = False,
) -> None:
    """Mark items that no challenger may fail: one that does is rejected, whatever else it can.

    PAWL_API_KEY must hold a key with role operator or admin; the mark is in the audit log.
    Example: pawl regression must-pass functional-negative 3fa9c1d2
    """
    from functools import partial

    from pawl.curation import regression

    settings = Settings()
    key = acting_key("operator", "admin")
    name = bootstrap.fleet(settings).agent(agent).name
    suite = regression.change(settings.regression_dir, name, partial(regression.marked, names=items, must=not off))
    detail = {"agent": name, "items": items, "must_pass": not off}
    bootstrap.control(settings).audit("regression items marked", key.name, detail, time.time())
    marked = sum(i.must_pass for i in suite.items)
    typer.echo(f"{marked} of {len(suite.items)} item(s) of {name} must pass")
