"""The `pawl` command. Thin: parses, calls, prints; errors become one readable message and exit code 1."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Annotated

import typer

from pawl import __version__, bootstrap
from pawl.errors import ApprovalInvalid, NotAllowed, PawlError
from pawl.rollout.control import Key, Role
from pawl.settings import Settings

app = typer.Typer(no_args_is_help=True, add_completion=False, help=__doc__, rich_markup_mode=None)
fleet_app = typer.Typer(no_args_is_help=True, help="The fleet's specification.")
keys_app = typer.Typer(no_args_is_help=True, help="API keys: stored hashed, shown once.")
rollout_app = typer.Typer(no_args_is_help=True, help="Rollouts: look, override, stop.")
audit_app = typer.Typer(no_args_is_help=True, help="The tamper-evident audit log.")
app.add_typer(fleet_app, name="fleet")
app.add_typer(keys_app, name="keys")
app.add_typer(rollout_app, name="rollout")
app.add_typer(audit_app, name="audit")

Agent = Annotated[str, typer.Argument(help="the agent's name in fleet.yaml")]
Version = Annotated[str, typer.Argument(help="the version's number in the registry")]
Reason = Annotated[str, typer.Option(help="why; kept in the audit log")]


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
    serve(settings, fleet, bootstrap.control(settings), bootstrap.graders(fleet), bootstrap.lake(settings))


@app.command("base")
def prepare_base() -> None:
    """Fetch or convert the base model once; print its folder."""
    from pawl.training.base_model_transformers import prepare_base as prepare

    settings = Settings()
    typer.echo(prepare(bootstrap.fleet(settings).base_model.source, settings.models_dir))


@fleet_app.command("check")
def fleet_check() -> None:
    """Read fleet.yaml; report every problem at once, with its line."""
    settings = Settings()
    fleet = bootstrap.fleet(settings)
    agents = ", ".join(a.name for a in fleet.agents)
    typer.echo(f"{settings.fleet}: good. Agents: {agents}. Upstreams: {', '.join(fleet.upstreams)}.")


@keys_app.command("create")
def keys_create(
    role: Annotated[str, typer.Argument(help="client, feedback, operator, approver or admin")],
    name: Annotated[str, typer.Argument(help="whose key it is; approvals carry this name")],
) -> None:
    """Make a key; its secret is printed this once."""
    roles: dict[str, Role] = {
        "client": "client",
        "feedback": "feedback",
        "operator": "operator",
        "approver": "approver",
        "admin": "admin",
    }
    if role not in roles:
        raise NotAllowed(f"no role {role!r}; there are: {', '.join(roles)}")
    key, secret = bootstrap.control(Settings()).create_key(roles[role], name)
    typer.echo(f"{key.id}  {key.role}  {key.name}", err=True)
    typer.echo(secret)


@keys_app.command("list")
def keys_list() -> None:
    """All keys, without their secrets."""
    for key in bootstrap.control(Settings()).keys():  # noqa: SIM118 - no dictionary
        typer.echo(f"{key.id}  {key.role:9} {'revoked' if key.revoked else 'active ':7} {key.name}")


@keys_app.command("revoke")
def keys_revoke(key_id: Annotated[str, typer.Argument(help="as `pawl keys list` shows it")]) -> None:
    """A revoked key stops working within a second."""
    if not bootstrap.control(Settings()).revoke_key(key_id):
        raise NotAllowed(f"there is no active key {key_id}; see `pawl keys list`")


@app.command()
def status() -> None:
    """What serves each agent, the open rollout, what waits for approval."""
    settings = Settings()
    fleet, control = bootstrap.fleet(settings), bootstrap.control(settings)
    for agent in fleet.agents:
        route = bootstrap.current_route(fleet, control, agent)
        typer.echo(f"{agent.name}: champion {route.champion.name}")
        if route.challenger:
            typer.echo(f"  challenger {route.challenger.name} at {route.percent} % ({route.stage})")
        for arm in route.shadows:
            typer.echo(f"  shadow {arm.name}")
        answered = {r.version for r in control.rollouts(agent.name)}
        for request in control.requests():
            if request.agent == agent.name and request.version not in answered:
                left = (request.expires - time.time()) / 3600
                what = "forced" if request.override_by else "waits for approval"
                seen = request.evidence[:12]
                typer.echo(f"  version {request.version} {what}, expires in {left:.0f} h, evidence {seen}")


@app.command()
def route(agent: Agent) -> None:
    """The route in force, as JSON."""
    import msgspec

    settings = Settings()
    fleet = bootstrap.fleet(settings)
    found = bootstrap.current_route(fleet, bootstrap.control(settings), fleet.agent(agent))
    typer.echo(msgspec.json.format(msgspec.json.encode(found)).decode())


@app.command()
def approve(
    agent: Agent,
    number: Version,
    code: Annotated[
        bool, typer.Option("--code", help="print a single-use code to paste as tag `approval_code` in MLflow's UI")
    ] = False,
    hours: Annotated[float, typer.Option(help="how long the approval or the code holds")] = 24.0,
) -> None:
    """Approve a version on the evidence you saw. PAWL_API_KEY must hold a key with role approver or admin."""
    from pawl.registry import approvals

    control = bootstrap.control(Settings())
    key = _key(("approver", "admin"))
    request = control.request(agent, number)
    if request is None:
        raise ApprovalInvalid(f"{agent} version {number} asks for no approval; see `pawl status`")
    expires = time.time() + hours * 3600
    if code:
        typer.echo(approvals.code_for(control, request, key, expires=expires, now=time.time()))
        return
    approvals.approve_by_key(control, request, key, expires=expires, now=time.time())
    typer.echo(f"{key.name} approved {agent} version {number} on evidence {request.evidence[:12]}")


@app.command()
def reject(agent: Agent, number: Version, reason: Reason) -> None:
    """Reject a version; its adapter hash is remembered."""
    from pawl.registry import approvals

    control = bootstrap.control(Settings())
    key = _key(("approver", "admin"))
    request = control.request(agent, number)
    if request is None:
        raise ApprovalInvalid(f"{agent} version {number} asks for no approval; see `pawl status`")
    approvals.reject_by_key(control, request, key, reason=reason, now=time.time())
    typer.echo(f"{key.name} rejected {agent} version {number}: {reason}")


@rollout_app.command("status")
def rollout_status(agent: Agent) -> None:
    """All rollouts of an agent with their moves, newest first."""
    for rollout in bootstrap.control(Settings()).rollouts(agent):
        held = " (held)" if rollout.held else ""
        typer.echo(f"{rollout.id}  version {rollout.version}  {rollout.stage}{held}")
        for t in rollout.history:
            at = time.strftime("%H:%M:%S", time.localtime(t.at))
            typer.echo(f"  {at}  {t.stage_from} -> {t.stage_to}  by {t.by}: {t.decision.reason}")


@rollout_app.command("force")
def rollout_force(
    agent: Agent,
    number: Version,
    reason: Reason,
    skip_shadow: Annotated[bool, typer.Option("--skip-shadow", help="begin with the first percentage")] = False,
) -> None:
    """Roll a version out past the gate, on your own name. Watchdog and rollback stay in force."""
    from pawl.improvement import promotion
    from pawl.improvement.workplace import Workplace

    key = _key(("operator", "admin"))
    skips = ("gate", "shadow") if skip_shadow else ("gate",)
    promotion.force(Workplace(Settings(), agent), number, key, reason, skips)
    typer.echo(f"{key.name} forced {agent} version {number} past {' and '.join(skips)}; the next roll_out opens it")


@rollout_app.command("abort")
def rollout_abort(agent: Agent, reason: Reason) -> None:
    """Send everything back to the champion now."""
    _by_hand(agent, "rollback", reason)


@rollout_app.command("hold")
def rollout_hold(agent: Agent, reason: Reason) -> None:
    """Stay at the present stage until resumed."""
    _by_hand(agent, "hold", reason)


@rollout_app.command("resume")
def rollout_resume(agent: Agent) -> None:
    """Let a held rollout go on by its evidence."""
    import msgspec

    key = _key(("operator", "admin"))
    control = bootstrap.control(Settings())
    rollout = control.open_rollout(agent)
    if rollout is None or not rollout.held:
        raise NotAllowed(f"{agent} has no held rollout; see `pawl rollout status {agent}`")
    control.save_rollout(msgspec.structs.replace(rollout, held=False))
    control.audit("rollout resumed", key.name, {"rollout": rollout.id}, time.time())
    typer.echo(f"{rollout.id} goes on at {rollout.stage}")


@audit_app.command("verify")
def audit_verify() -> None:
    """Check the hash chain of the audit log."""
    broken = bootstrap.control(Settings()).verify_audit()
    if broken:
        raise PawlError(f"the audit log was changed: {broken}")
    typer.echo("the audit log is whole")


@audit_app.command("show")
def audit_show() -> None:
    """Print the audit log."""
    for e in bootstrap.control(Settings()).audit_log():
        at = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(e["at"]))
        typer.echo(f"{at}  {e['event']}  by {e['by']}  {e['detail']}")


def _by_hand(agent: str, action: str, reason: str) -> None:
    from pawl.rollout.state import Decision, move

    key = _key(("operator", "admin"))
    control = bootstrap.control(Settings())
    rollout = control.open_rollout(agent)
    if rollout is None:
        raise NotAllowed(f"{agent} has no open rollout; see `pawl rollout status {agent}`")
    now = time.time()
    decision = Decision(action="hold" if action == "hold" else "rollback", reason=f"{key.name}: {reason}")
    saved = control.save_rollout(move(rollout, decision, by=key.name, now=now))
    control.audit(f"rollout {action} by hand", key.name, {"rollout": saved.id, "reason": reason}, now)
    typer.echo(f"{saved.id}: {saved.stage}{' (held)' if saved.held else ''}")


def _key(roles: tuple[str, ...]) -> Key:
    settings = Settings()
    if not settings.api_key:
        wanted = " or ".join(roles)
        raise NotAllowed(f"set PAWL_API_KEY to a key with role {wanted}; `pawl keys create {roles[0]} NAME` makes one")
    key = bootstrap.control(settings).find_key(settings.api_key)
    if key is None:
        raise NotAllowed("PAWL_API_KEY holds no key of this control database; see `pawl keys list`")
    if key.role not in roles:
        raise NotAllowed(f"the key {key.name!r} has role {key.role}; this needs {' or '.join(roles)}")
    return key


def main() -> None:
    """Entry point: a PawlError is a message, never a traceback."""
    try:
        app()
    except PawlError as e:
        typer.echo(f"pawl: {e}", err=True)
        sys.exit(1)
    except KeyError as e:
        known = ", ".join(a.name for a in bootstrap.fleet(Settings()).agents)
        typer.echo(f"pawl: no agent {e}; known are: {known} ({Path(Settings().fleet)})", err=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
