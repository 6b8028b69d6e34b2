"""`pawl improve`: retrain now, in somebody's name."""

from __future__ import annotations

import json
import time
from datetime import date
from typing import Annotated, Any, Literal

import typer

from pawl import bootstrap
from pawl.commands.acting_key import acting_key
from pawl.settings import Settings

DEPLOYMENT = "improve-agent/now"
FLEET_DEPLOYMENT = "improve-fleet/weekly"


def improve(
    agent: Annotated[str, typer.Argument(help="the agent's name in fleet.yaml")] = "",
    everyone: Annotated[bool, typer.Option("--all", help="every agent of fleet.yaml, on its missed weeks")] = False,
    days: Annotated[float | None, typer.Option(min=0.01, help="of the latest traffic; default: all")] = None,
    week: Annotated[str, typer.Option(help="the week with this day, e.g. 2026-11-15; where it was missed")] = "",
    weeks: Annotated[int, typer.Option(min=0, max=52, help="missed ones of so many latest weeks")] = 0,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="say what would be trained; change nothing")] = False,
    when_busy: Annotated[
        Literal["wait", "cancel"], typer.Option(help="where another run retrains the agent already")
    ] = "wait",
    as_json: Annotated[bool, typer.Option("--json", help="run, deployment and parameters as one object")] = False,
) -> None:
    """Start a retrain now: a run in Prefect, whose id is printed. Needs a key with role operator or admin.

    An agent alone learns from all its traffic, or from the latest --days. With --all, --week or --weeks it is the
    weekly run: whole weeks by its schedule, the missed ones only, oldest first, none twice. A dry run rehearses what
    the same command without it would do, and writes a table into Prefect's UI: windows, feedback, examples, time and
    memory.

    The name of your key goes with the version as who started it.

    Example: pawl improve --all --weeks 4 --dry-run
    """
    from pawl.registry.approvals import starting_pointer
    from pawl.rollout.prefect_api import PrefectApi

    deployment, parameters = chosen(agent, everyone, days, week, weeks, dry_run, when_busy, time.time())
    key = acting_key("operator", "admin")
    settings, now = Settings(), time.time()
    if agent:
        bootstrap.fleet(settings).agent(agent)
    control = bootstrap.control(settings)
    run = PrefectApi(settings.prefect_api_url).start_run(deployment, parameters)
    # The name stands here and not in the run's parameters, which anybody who reaches Prefect can fill in. It is read
    # when training begins, long after this.
    control.move_pointer(starting_pointer(run), 0, key.name)
    told = {"agent": agent or "all", "run": run} | ({"dry_run": True} if dry_run else {})
    control.audit("improvement started", key.name, told, now)
    typer.echo(json.dumps({"run": run, "deployment": deployment, "parameters": parameters}) if as_json else run)


def chosen(
    agent: str, everyone: bool, days: float | None, week: str, weeks: int, dry_run: bool, when_busy: str, now: float
) -> tuple[str, dict[str, Any]]:
    """The deployment to run and its parameters (pure). BadParameter for options that contradict each other."""
    if bool(agent) == everyone:
        raise typer.BadParameter("name one agent, or say --all")
    whole_weeks = everyone or bool(week) or weeks > 0
    if days is not None and whole_weeks:
        raise typer.BadParameter("--days is for one agent's latest traffic; whole weeks are --week or --weeks")
    if week and weeks:
        raise typer.BadParameter("--week is one week, --weeks are the latest; say one of them")
    if not whole_weeks:
        since = {} if days is None else {"since": now - days * 86400}
        if dry_run:  # the same stretch; 0: all there is
            return FLEET_DEPLOYMENT, {"agents": [agent], "dry_run": True, "since": since.get("since", 0.0)}
        return DEPLOYMENT, {"agent": agent, "when_busy": when_busy} | since
    parameters: dict[str, Any] = {
        "agents": [agent] if agent else None,
        "weeks_back": weeks or 1,
        "dry_run": dry_run,
        "when_busy": when_busy,
    }
    if week:
        try:
            parameters["week"] = date.fromisoformat(week).isoformat()
        except ValueError as e:
            raise typer.BadParameter(f"{week!r} is no day; write one as 2026-11-15") from e
    return FLEET_DEPLOYMENT, parameters
