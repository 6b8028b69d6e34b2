"""`pawl plan-evaluation`: how many items a comparison needs, before it is made."""

from __future__ import annotations

from typing import Annotated

import typer

from pawl.settings import Settings


def plan_evaluation(
    agent: Annotated[str, typer.Argument(help="the agent's name in fleet.yaml")],
    margin: Annotated[float | None, typer.Option(min=0.0001, max=0.9999, help="default: as fleet.yaml says")] = None,
    alpha: Annotated[float | None, typer.Option(min=0.0001, max=0.4999, help="default: as fleet.yaml says")] = None,
    power: Annotated[float | None, typer.Option(min=0.5, max=0.9999, help="default: as fleet.yaml says")] = None,
    sd: Annotated[
        float | None,
        typer.Option(min=0.0001, max=1, help="of items' paired differences; default: of the latest comparison, or 0.4"),
    ] = None,
    icc: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="share of it that a source's items have in common; default: the same, or 0.1"),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="one JSON object instead of text")] = False,
) -> None:
    """Say before a comparison how many items its margin needs, what it would miss, and whether so many are held out.

    Exit code 1 where a challenger as good as its champion would too often be held.
    Example: pawl plan-evaluation functional-negative --margin 0.03
    """
    import msgspec

    from pawl import bootstrap
    from pawl.improvement.evaluation_plan import plan, told
    from pawl.improvement.workplace import Workplace

    settings = Settings()
    place = Workplace(settings, bootstrap.fleet(settings).agent(agent).name)
    made = plan(place, margin=margin, alpha=alpha, power=power, sd=sd, icc=icc)
    if as_json:
        typer.echo(msgspec.json.encode({**msgspec.to_builtins(made), "good": made.good}).decode())
    else:
        typer.echo(told(made))
    if not made.good:
        raise typer.Exit(1)
