"""The `pawl` command. Thin: parses, calls, prints; errors become one readable message and exit code 1."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from pawl import __version__, bootstrap
from pawl.commands import (
    adapter,
    approvals,
    audit,
    auto,
    chain,
    champion,
    compare,
    compliance,
    database,
    dataset,
    doctor,
    drift,
    evaluation,
    export,
    improve,
    keys,
    lake,
    platform,
    quarantine,
    registry,
    regression,
    report,
    review,
    rollouts,
    search,
    status,
    summary,
    traffic,
    training,
)
from pawl.commands import agent as agents
from pawl.errors import PawlError
from pawl.qe.item import CannotGrade
from pawl.settings import Settings

app = typer.Typer(no_args_is_help=True, add_completion=False, help=__doc__, rich_markup_mode=None)
fleet_app = typer.Typer(no_args_is_help=True, help="The fleet's specification.")
app.add_typer(fleet_app, name="fleet")
app.add_typer(keys.app, name="keys")
app.add_typer(database.app, name="database")
app.add_typer(rollouts.app, name="rollout")
app.add_typer(audit.app, name="audit")
app.add_typer(lake.app, name="lake")
app.add_typer(dataset.app, name="dataset")
app.add_typer(review.app, name="review")
lake.app.command("quarantine")(quarantine.quarantine)
app.command("search")(search.search)
app.command("plan-training")(training.plan_training)
app.command("plan-evaluation")(evaluation.plan_evaluation)
app.add_typer(regression.app, name="regression")
app.add_typer(report.app, name="report")
report.app.command("compliance")(compliance.compliance)
app.add_typer(adapter.app, name="adapter")
app.add_typer(auto.app, name="auto")
app.add_typer(chain.app, name="chain")
app.add_typer(champion.app, name="champion")
app.add_typer(agents.app, name="agent")
app.add_typer(traffic.app, name="traffic")
app.command("improve")(improve.improve)
app.command("approve")(approvals.approve)
app.command("reject")(approvals.reject)
app.add_typer(approvals.app, name="approvals")
app.add_typer(registry.app, name="registry")
app.command("export")(export.export)
app.command("compare")(compare.compare)
app.command("restore")(rollouts.restore)
app.command("status")(status.status)
app.command("drift")(drift.drift)
app.command("summary")(summary.summary)
app.command("up")(platform.up)
app.command("down")(platform.down)
app.command("doctor")(doctor.doctor)
app.command("logs")(platform.logs)
app.command("import")(lake.take_in)
app.command("erase")(lake.erase)

Agent = Annotated[str, typer.Argument(help="the agent's name in fleet.yaml")]


@app.command()
def version() -> None:
    """Print Pawl's version."""
    typer.echo(__version__)


@app.command()
def gateway() -> None:
    """Serve the OpenAI-compatible gateway until SIGTERM, then drain."""
    from pawl.gateway.serve import serve

    settings = Settings()
    fleet = bootstrap.fleet(settings)
    lake, promises = bootstrap.lake(settings), bootstrap.tasks(fleet)
    serve(settings, fleet, bootstrap.control(settings), bootstrap.graders(fleet), lake, promises)


@app.command()
def embeddings(
    model: Annotated[str, typer.Argument(help="a local folder, or a Hugging Face id that is in the cache")],
    name: Annotated[str, typer.Option(help="its model name, as gateway.embeddings in fleet.yaml says")] = "embedder",
    port: Annotated[int, typer.Option(help="on loopback")] = 8750,
) -> None:
    """Serve a local embedding model for the gateway's /v1/embeddings until SIGTERM."""
    from pawl.serving.embeddings_transformers import serve

    serve(model, name, Settings().host, port)


@app.command("base")
def prepare_base() -> None:
    """Fetch or convert the base model once; print its folder."""
    from pawl.training.base_model_transformers import prepare_base as prepare

    settings = Settings()
    typer.echo(prepare(bootstrap.fleet(settings).base_model.source, settings.models_dir))


@app.command("base-quality")
def base_quality(
    agent: Agent,
    dataset_name: Annotated[
        str, typer.Option("--dataset", help="as `pawl dataset list` has it; default: the agent's newest")
    ] = "",
) -> None:
    """Measure what quantising cost the base model, on a dataset's validation split; kept, and demanded by training."""
    from pawl.improvement.base_quality import measure_base
    from pawl.improvement.planning import dataset_for
    from pawl.improvement.workplace import Workplace

    settings = Settings()
    place = Workplace(settings, bootstrap.fleet(settings).agent(agent).name)
    found = measure_base(place, dataset_for(place, dataset_name))
    if found is None:
        typer.echo("the base model is not quantised: nothing to measure")
        return
    typer.echo(
        f"{found.method}: loss {found.loss:.4f} nats a token, unquantised {found.reference_loss:.4f}; it costs "
        f"{found.lost.mean:.4f} [{found.lost.lower:.4f}, {found.lost.upper:.4f}] on {found.examples} examples"
    )


@fleet_app.command("check")
def fleet_check() -> None:
    """Read fleet.yaml; report every problem at once, with its line. Tells the sandbox's level on this machine too."""
    from pawl import sandbox

    settings = Settings()
    fleet = bootstrap.fleet(settings)
    agents = ", ".join(a.name for a in fleet.agents)
    chains = f" Chains: {', '.join(c.name for c in fleet.chains)}." if fleet.chains else ""
    typer.echo(f"{settings.fleet}: good. Agents: {agents}.{chains} Upstreams: {', '.join(fleet.upstreams)}.")
    level, least = sandbox.strongest(), fleet.sandbox.least
    typer.echo(f"Sandbox for generated code here: {level or 'none'}; the least that will do: {least or 'not given'}.")
    if level is None or not sandbox.is_enough(level, least):
        typer.echo(f"Answers that must be run cannot be graded here: {sandbox.remedy()}.")
    elif level == "guard":
        typer.echo(f"The guard does not stop an attack: {sandbox.remedy()}.")


@app.command()
def route(agent: Agent) -> None:
    """The route in force, as JSON."""
    import msgspec

    settings = Settings()
    fleet = bootstrap.fleet(settings)
    found = bootstrap.current_route(fleet, bootstrap.control(settings), fleet.agent(agent))
    typer.echo(msgspec.json.format(msgspec.json.encode(found)).decode())


def main() -> None:
    """Entry point: a PawlError is a message, never a traceback."""
    try:
        app()
    except PawlError as e:
        typer.echo(f"pawl: {e}", err=True)
        sys.exit(1)
    except CannotGrade as e:
        typer.echo(f"pawl: cannot grade: {e}", err=True)
        sys.exit(1)
    except KeyError as e:
        known = ", ".join(a.name for a in bootstrap.fleet(Settings()).agents)
        typer.echo(f"pawl: no agent {e}; known are: {known} ({Path(Settings().fleet)})", err=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
