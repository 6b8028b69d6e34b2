"""`pawl champion`: served merged on a replica of its own, or as an adapter on the cluster."""

from __future__ import annotations

import shlex
from typing import Annotated

import typer

from pawl.commands.acting_key import acting_key
from pawl.improvement.workplace import Workplace
from pawl.settings import Settings

app = typer.Typer(no_args_is_help=True, help="How a champion is served: merged into a replica of its own, or adapter.")
Agent = Annotated[str, typer.Argument(help="the agent's name in fleet.yaml")]


@app.command("merge")
def merge(agent: Agent, port: Annotated[int, typer.Option(help="of the replica that will serve it")] = 8711) -> None:
    """Write the champion as one model; print the command that serves it."""
    from pawl.improvement import champion_serving
    from pawl.serving import vllm_process

    place = Workplace(Settings(), agent)
    folder = champion_serving.write_merged_champion(place)
    typer.echo(f"{folder}", err=True)
    env = [f"{name}={shlex.quote(value)}" for name, value in vllm_process.environment().items()]
    typer.echo(" ".join([*env, shlex.join(champion_serving.command(place, folder, port))]))


@app.command("merged")
def merged(agent: Agent) -> None:
    """Send the champion's requests to its merged model, once that answers. Needs a key with role operator."""
    from pawl.improvement import champion_serving

    route = champion_serving.serve_merged(Workplace(Settings(), agent), acting_key("operator", "admin"))
    typer.echo(f"{agent}: champion {route.champion.name} on {route.champion.upstream}")


@app.command("adapter")
def adapter(agent: Agent) -> None:
    """Send the champion's requests to its adapter on the cluster again. Needs a key with role operator."""
    from pawl.improvement import champion_serving

    route = champion_serving.serve_adapter(Workplace(Settings(), agent), acting_key("operator", "admin"))
    typer.echo(f"{agent}: champion {route.champion.name} on {route.champion.upstream}")
