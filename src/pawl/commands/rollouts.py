"""`pawl rollout`: look, override, stop."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from pawl import bootstrap
from pawl.commands.acting_key import acting_key
from pawl.errors import NotAllowed
from pawl.rollout.state import Rollout
from pawl.settings import Settings

app = typer.Typer(no_args_is_help=True, help="Rollouts: look, override, stop.")
Agent = Annotated[str, typer.Argument(help="the agent's name in fleet.yaml")]
Version = Annotated[str, typer.Argument(help="the version's number in the registry")]
Reason = Annotated[str, typer.Option(help="why; kept in the audit log")]


@app.command("status")
def rollout_status(agent: Agent) -> None:
    """All rollouts of an agent with their moves, newest first."""
    found = bootstrap.control(Settings()).rollouts(agent)
    if not found:
        typer.echo(f"{agent} has had no rollout")
    for rollout in found:
        held = (" (held by hand)" if rollout.waits_for_a_person else " (held)") if rollout.held else ""
        held += f", {rollout.share} % of sessions" if rollout.share is not None else ""
        what = f"version {rollout.version}" if rollout.version else rollout.challenger.name
        typer.echo(f"{rollout.id}  {what}  {rollout.stage}{held}")
        for t in rollout.history:
            at = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(t.at))
            typer.echo(f"  {at}  {t.stage_from} -> {t.stage_to}  by {t.by}: {t.decision.reason}")


@app.command("plot")
def rollout_plot(
    agent: Agent,
    out: Annotated[Path, typer.Option(help="an SVG file")] = Path("rollout.svg"),
    rollout_id: Annotated[str, typer.Option("--id", help="default: the latest; `pawl rollout status` lists them")] = "",
) -> None:
    """Draw a rollout through its stages: the scores of both arms, and the evidence of harm with its limit."""
    from pawl.improvement import publish
    from pawl.improvement.workplace import Workplace

    place = Workplace(Settings(), agent)
    found = [r for r in place.control.rollouts(agent) if not r.restores and rollout_id in ("", r.id)]
    if not found:
        raise NotAllowed(f"{agent} has no such rollout; see `pawl rollout status {agent}`")
    out.write_text(publish.rollout_plot(place, found[0]))
    typer.echo(f"{found[0].id}: {out}")


@app.command("force")
def rollout_force(
    agent: Agent,
    number: Version,
    reason: Reason,
    skip_shadow: Annotated[bool, typer.Option("--skip-shadow", help="begin with the first percentage")] = False,
) -> None:
    """Roll a version out past the gate, on your own name. Watchdog and rollback stay in force."""
    from pawl.improvement import approving
    from pawl.improvement.workplace import Workplace

    key = acting_key("operator", "admin")
    skips = ("gate", "shadow") if skip_shadow else ("gate",)
    approving.force(Workplace(Settings(), agent), number, key, reason, skips)
    typer.echo(f"{key.name} forced {agent} version {number} past {' and '.join(skips)}; the next roll_out opens it")


@app.command("pause")
def rollout_pause(agent: Agent, reason: Reason) -> None:
    """Stay at the present stage until resumed. Rollback by evidence stays in force."""
    from pawl.improvement import by_hand

    key = acting_key("operator", "admin")
    _tell(by_hand.pause(bootstrap.control(Settings()), agent, key, reason))


@app.command("reduce")
def rollout_reduce(
    agent: Agent,
    to: Annotated[int, typer.Option(help="percent of sessions; less than the challenger has now", min=1, max=99)],
    reason: Reason,
) -> None:
    """Partial rollback: a smaller share for the challenger at once, until resumed. Breakers are stricter meanwhile.

    Sessions above the share go back to the champion; resuming gives the stage its whole share again.
    Example: pawl rollout reduce functional-negative --to 5 --reason "complaints about dates"
    """
    from pawl.improvement import by_hand

    key = acting_key("operator", "admin")
    _tell(by_hand.reduce(bootstrap.control(Settings()), agent, to, key, reason))


@app.command("resume")
def rollout_resume(agent: Agent, reason: Annotated[str, typer.Option(help="kept in the audit log")] = "") -> None:
    """Let a held rollout go on by its evidence, with its stage's whole share."""
    from pawl.improvement import by_hand

    key = acting_key("operator", "admin")
    _tell(by_hand.resume(bootstrap.control(Settings()), agent, key, reason))


@app.command("advance")
def rollout_advance(agent: Agent, reason: Reason) -> None:
    """Go on to the next stage before the evidence does; what it says is recorded beside your reason.

    Refused where the evidence demands less traffic for the challenger.
    """
    from pawl.improvement import by_hand
    from pawl.improvement.workplace import Workplace

    key = acting_key("operator", "admin")
    saved = by_hand.step_on(Workplace(Settings(), agent), key, reason)
    _tell(saved)
    typer.echo(saved.history[-1].decision.reason)


@app.command("abort")
def rollout_abort(agent: Agent, reason: Reason) -> None:
    """Send everything back to the champion now."""
    from pawl.improvement import by_hand

    key = acting_key("operator", "admin")
    _tell(by_hand.abort(bootstrap.control(Settings()), agent, key, reason))


def restore(
    agent: Agent,
    to: Annotated[str, typer.Option(help="a version's number, base, cloud, or an upstream's name in fleet.yaml")],
    reason: Reason,
    despite_rejection: Annotated[
        bool, typer.Option("--despite-rejection", help="serve a version that was rejected or rolled back")
    ] = False,
) -> None:
    """Complete rollback: serve an earlier version, the base model or the cloud again, all traffic at once.

    An open rollout is aborted first. Needs neither Prefect nor, where the files are on this machine, MLflow.
    Example: pawl restore functional-negative --to 3 --reason "version 4 breaks our parser"
    """
    from pawl.improvement import by_hand
    from pawl.improvement.workplace import Workplace

    key = acting_key("operator", "admin")
    saved = by_hand.restore(Workplace(Settings(), agent), to, key, reason, despite_rejection)
    if saved.stage == "rolled_back":
        typer.echo(f"{agent}: {saved.id} aborted; {saved.champion.name} has all traffic within a second")
    else:
        typer.echo(f"{agent}: {saved.champion.name} -> {saved.challenger.name}; gateways follow within a second")


def _tell(saved: Rollout) -> None:
    share = f", {saved.share} % of sessions" if saved.share is not None else ""
    typer.echo(f"{saved.id}: {saved.stage}{' (held)' if saved.held else ''}{share}")
