"""`pawl auto`: the classifier behind the model name `auto`."""

from __future__ import annotations

import typer

from pawl.settings import Settings

app = typer.Typer(no_args_is_help=True, help="The model name `auto`: which agent a request is for.")


@app.command()
def train() -> None:
    """Learn which agent a request is for, from the agents' own items and recorded requests; running gateways take it.

    Run it again when agents are added. Example: pawl auto train
    """
    from pawl import bootstrap
    from pawl.improvement.picking import train_picker

    settings = Settings()
    fleet = bootstrap.fleet(settings)
    found = train_picker(fleet, bootstrap.lake(settings), settings.home, lambda name: typer.echo(f"reading {name} ..."))
    assert fleet.auto is not None
    typer.echo(
        f"on {found.texts} prompts of sources that it did not learn from, sure at {fleet.auto.min_confidence:g}: "
        f"{100 * found.right:.1f} % right, {100 * found.unsure:.1f} % left to {fleet.auto.unsure}, "
        f"{100 * found.wrong:.1f} % wrong"
    )
    for name, share in sorted(found.by_agent.items()):
        typer.echo(f"  {name}: {100 * share:.1f} % right")


@app.command()
def ask(text: str) -> None:
    """Which agent a text would go to, and how sure that is. Example: pawl auto ask "Find the bug in this diff ..." """
    from pawl import bootstrap
    from pawl.gateway.auto import chosen
    from pawl.improvement.picking import FILE
    from pawl.learning.picker_sklearn import load, pick

    settings = Settings()
    fleet = bootstrap.fleet(settings)
    if fleet.auto is None:
        raise typer.BadParameter("fleet.yaml has no `auto`: add `auto: {unsure: AGENT}`")
    found = pick(load(settings.home / FILE), text)
    agent = chosen(found, fleet.auto, [a.name for a in fleet.agents])
    typer.echo(f"{agent} (the classifier: {found.agent}, {found.confidence:.2f})")
