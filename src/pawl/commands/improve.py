"""`pawl improve`: the weekly run, now, in somebody's name."""

from __future__ import annotations

import time
from typing import Annotated, Any

import typer

from pawl import bootstrap
from pawl.commands.acting_key import acting_key
from pawl.settings import Settings

DEPLOYMENT = "improve-agent/weekly"


def improve(
    agent: Annotated[str, typer.Argument(help="the agent's name in fleet.yaml")],
    days: Annotated[float | None, typer.Option(min=0.01, help="of the latest traffic; default: all")] = None,
) -> None:
    """Start the weekly run now. Your key's name goes with the version as who started it; needs operator or admin."""
    from pawl.registry.approvals import starting_pointer
    from pawl.rollout.prefect_api import PrefectApi

    key = acting_key("operator", "admin")
    settings, now = Settings(), time.time()
    bootstrap.fleet(settings).agent(agent)
    control = bootstrap.control(settings)
    parameters: dict[str, Any] = {"agent": agent} | ({} if days is None else {"since": now - days * 86400})
    run = PrefectApi(settings.prefect_api_url).start_run(DEPLOYMENT, parameters)
    # The name stands here and not in the run's parameters, which anybody who reaches Prefect can fill in. It is read
    # when training begins, long after this.
    control.move_pointer(starting_pointer(run), 0, key.name)
    control.audit("improvement started", key.name, {"agent": agent, "run": run}, now)
    typer.echo(run)
