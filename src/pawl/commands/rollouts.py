"""`pawl rollout`: look, override, stop."""

from __future__ import annotations

import time
from typing import Annotated

import typer

from pawl import bootstrap
from pawl.commands.acting_key import acting_key
from pawl.errors import NotAllowed
from pawl.settings import Settings

app = typer.Typer(no_args_is_help=True, help="Rollouts: look, override, stop.")
Agent = Annotated[str, typer.Argument(help="the agent's name in fleet.yaml")]
Version = Annotated[str, typer.Argument(help="the version's number in the registry")]
Reason = Annotated[str, typer.Option(help="why; kept in the audit log")]


@app.command("status")
def rollout_status(agent: Agent) -> None:
    """All rollouts of an agent with their moves, newest first."""
    for rollout in bootstrap.control(Settings()).rollouts(agent):
        held = " (held)" if rollout.held else ""
        typer.echo(f"{rollout.id}  version {rollout.version}  {rollout.stage}{held}")
        for t in rollout.history:
            at = time.strftime("%H:%M:%S", time.localtime(t.at))
            typer.echo(f"  {at}  {t.stage_from} -> {t.stage_to}  by {t.by}: {t.decision.reason}")


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


@app.command("abort")
def rollout_abort(agent: Agent, reason: Reason) -> None:
    """Send everything back to the champion now."""
    _by_hand(agent, "rollback", reason)


@app.command("hold")
def rollout_hold(agent: Agent, reason: Reason) -> None:
    """Stay at the present stage until resumed."""
    _by_hand(agent, "hold", reason)


@app.command("resume")
def rollout_resume(agent: Agent) -> None:
    """Let a held rollout go on by its evidence."""
    import msgspec

    key = acting_key("operator", "admin")
    control = bootstrap.control(Settings())
    rollout = control.open_rollout(agent)
    if rollout is None or not rollout.held:
        raise NotAllowed(f"{agent} has no held rollout; see `pawl rollout status {agent}`")
    control.save_rollout(msgspec.structs.replace(rollout, held=False))
    control.audit("rollout resumed", key.name, {"rollout": rollout.id}, time.time())
    typer.echo(f"{rollout.id} goes on at {rollout.stage}")


def _by_hand(agent: str, action: str, reason: str) -> None:
    from pawl.rollout.state import Decision, move

    key = acting_key("operator", "admin")
    control = bootstrap.control(Settings())
    rollout = control.open_rollout(agent)
    if rollout is None:
        raise NotAllowed(f"{agent} has no open rollout; see `pawl rollout status {agent}`")
    now = time.time()
    decision = Decision(action="hold" if action == "hold" else "rollback", reason=f"{key.name}: {reason}")
    saved = control.save_rollout(move(rollout, decision, by=key.name, now=now))
    control.audit(f"rollout {action} by hand", key.name, {"rollout": saved.id, "reason": reason}, now)
    typer.echo(f"{saved.id}: {saved.stage}{' (held)' if saved.held else ''}")
