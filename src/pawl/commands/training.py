"""`pawl plan-training`: what a training will take, and whether it may and can run here."""

from __future__ import annotations

from typing import Annotated

import typer

from pawl.settings import Settings


def plan_training(
    agent: Annotated[str, typer.Argument(help="the agent's name in fleet.yaml")],
    dataset: Annotated[str, typer.Option(help="as `pawl dataset list` has it; default: the agent's newest")] = "",
    measure: Annotated[bool, typer.Option("--measure", help="time a few real steps; loads the model")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="one JSON object instead of text")] = False,
) -> None:
    """Say before a training starts: steps, tokens, memory, time, disk, whether it fits and whether it is allowed.

    Exit code 1 where it does not fit or policy forbids it.
    Example: pawl plan-training functional-negative --measure
    """
    import msgspec

    from pawl import bootstrap
    from pawl.improvement.planning import dataset_for, plan
    from pawl.improvement.workplace import Workplace
    from pawl.training.plan_report import told

    settings = Settings()
    place = Workplace(settings, bootstrap.fleet(settings).agent(agent).name)
    made = plan(place, dataset_for(place, dataset), measure=measure)
    if as_json:
        totals = {"memory_total": made.memory.total, "disk_total": made.disk.total, "good": made.good}
        typer.echo(msgspec.json.encode({**msgspec.to_builtins(made), **totals}).decode())
    else:
        typer.echo(told(made))
    if not made.good:
        raise typer.Exit(1)
