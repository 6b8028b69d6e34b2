"""`pawl approve`, `reject` and `approvals`: what waits for a person, and their answer."""

from __future__ import annotations

import time
from typing import Annotated, Any

import typer

from pawl import bootstrap
from pawl.commands.acting_key import acting_key
from pawl.errors import ApprovalInvalid
from pawl.registry import approvals
from pawl.rollout.control import ControlStore, Request
from pawl.rollout.events import Name, about
from pawl.settings import Settings

app = typer.Typer(invoke_without_command=True, help="What waits for approval, and what nobody answered in time.")
Agent = Annotated[str, typer.Argument(help="the agent's name in fleet.yaml")]
Version = Annotated[str, typer.Argument(help="the version's number in the registry")]
Reason = Annotated[str, typer.Option(help="why; kept in the audit log")]
Hours = Annotated[float, typer.Option(min=0.01, help="how long the approval or the code holds")]
_AS_CODE = (
    "print a single-use code to paste as tag `approval_code` in MLflow's UI, or into the run that waits in Prefect"
)


def approve(
    agent: Agent, number: Version, code: Annotated[bool, typer.Option("--code", help=_AS_CODE)] = False,
    hours: Hours = 24.0,
) -> None:  # fmt: skip
    """Approve a version on the evidence you saw. PAWL_API_KEY must hold a key with role approver or admin."""
    settings = Settings()
    control = bootstrap.control(settings)
    key, request, now = acting_key("approver", "admin"), _request(control, agent, number), time.time()
    expires = now + hours * 3600
    if code:
        typer.echo(approvals.code_for(control, request, key, expires=expires, now=now))
        return
    approvals.approve_by_key(control, request, key, expires=expires, now=now)
    counted = approvals.tally(request, control.approvals(agent, number), now)
    lacks = f"; it takes {counted.lacks}" if counted.lacks else ""
    typer.echo(f"{key.name} approved {agent} version {number} on evidence {request.evidence[:12]}{lacks}")
    # The rollout opens at once; without Prefect the next minute's run finds the approval.
    name: Name = "pawl.approval.granted" if counted.standing == "approved" else "pawl.approval.answered"
    _tell(settings, request, name, now, by=list(counted.yes), standing=counted.standing, lacks=counted.lacks)


def reject(
    agent: Agent, number: Version, reason: Reason, code: Annotated[bool, typer.Option("--code", help=_AS_CODE)] = False,
    hours: Hours = 24.0,
) -> None:  # fmt: skip
    """Reject a version; its adapter hash is remembered."""
    settings = Settings()
    control = bootstrap.control(settings)
    key, request, now = acting_key("approver", "admin"), _request(control, agent, number), time.time()
    if code:
        expires = now + hours * 3600
        made = approvals.code_for(control, request, key, expires=expires, now=now, verdict="rejected", reason=reason)
        typer.echo(made)
        return
    approvals.reject_by_key(control, request, key, reason=reason, now=now)
    typer.echo(f"{key.name} rejected {agent} version {number}: {reason}")
    _tell(settings, request, "pawl.approval.answered", now, by=[key.name], standing="rejected", lacks="")


@app.callback()
def show(context: typer.Context) -> None:
    """What waits for approval: its evidence, who answered, what it takes, and until when. What is held, too."""
    if context.invoked_subcommand is not None:
        return
    settings, now = Settings(), time.time()
    control = bootstrap.control(settings)
    asked = control.requests()
    waiting = approvals.unanswered(asked, control.rollouts())
    for request in waiting:
        _show(settings, control, request, now)
    held = [r for r in asked if r.closed_as == "held"]
    for request in held:
        at = time.strftime("%Y-%m-%d %H:%M", time.localtime(request.closed_at or 0))
        typer.echo(f"{request.agent} version {request.version}  held since {at}: nobody answered in time")
        again = "approvals renew" if request.override_by is None else "rollout force"
        typer.echo(f"  ask again: pawl {again} {request.agent} {request.version}")
    if not waiting and not held:
        typer.echo("nothing waits for approval")


@app.command("renew")
def renew(agent: Agent, number: Version) -> None:
    """Ask again for a version that nobody answered in time, on the same evidence."""
    from pawl.improvement import approving
    from pawl.improvement.workplace import Workplace

    key = acting_key("operator", "approver", "admin")
    settings = Settings()
    bootstrap.fleet(settings).agent(agent)
    request = approving.renew(Workplace(settings, agent), number, key, time.time())
    until = time.strftime("%Y-%m-%d %H:%M", time.localtime(request.expires))
    typer.echo(f"{agent} version {number} waits again, until {until}")


def _show(settings: Settings, control: ControlStore, request: Request, now: float) -> None:
    left = (request.expires - now) / 3600
    head = f"{request.agent} version {request.version}  {request.adapter}"
    if request.override_by is not None:
        typer.echo(f"{head}\n  forced by {request.override_by}: {request.override_reason}")
        return
    counted = approvals.tally(request, control.approvals(request.agent, request.version), now)
    typer.echo(f"{head}  {counted.standing}" + (f", expires in {left:.1f} h" if left > 0 else ""))
    typer.echo(f"  evidence   {request.evidence}")
    page = settings.reports_dir / f"{request.candidate}-evidence.html"
    if request.candidate and page.exists():
        typer.echo(f"  read       {page.resolve().as_uri()}")
    if request.link:
        typer.echo(f"  registry   {request.link}")
    typer.echo(f"  started by {request.starter or 'unknown'}")
    for a in control.approvals(request.agent, request.version):
        at = time.strftime("%Y-%m-%d %H:%M", time.localtime(a.at))
        void = "" if a.evidence == request.evidence else "  (void: other evidence)"
        typer.echo(f"  {a.verdict:10} {a.by}, {at}, by {a.via}{': ' if a.reason else ''}{a.reason}{void}")
    if counted.lacks and counted.standing == "waiting":
        typer.echo(f"  it takes   {counted.lacks}")


def _request(control: ControlStore, agent: str, number: str) -> Request:
    request = control.request(agent, number)
    if request is None:
        raise ApprovalInvalid(f"{agent} version {number} asks for no approval; see `pawl approvals`")
    return request


def _tell(settings: Settings, request: Request, name: Name, now: float, **detail: Any) -> None:
    bootstrap.events(settings).emit(about(request, name, now, **detail))
