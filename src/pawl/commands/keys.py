"""`pawl keys`: create, list, rotate, revoke."""

from __future__ import annotations

import time
from typing import Annotated, get_args

import typer

from pawl import bootstrap
from pawl.errors import NotAllowed
from pawl.fleet.limits import KeyTerms, LimitsSpec, Privacy
from pawl.rollout.control import Role
from pawl.settings import Settings

app = typer.Typer(no_args_is_help=True, help="API keys: stored hashed, shown once.")
KeyId = Annotated[str, typer.Argument(help="as `pawl keys list` shows it")]


@app.command("create")
def create(
    role: Annotated[str, typer.Argument(help="client, feedback, operator, approver or admin")],
    name: Annotated[str, typer.Argument(help="whose key it is; approvals carry this name")],
    agent: Annotated[list[str] | None, typer.Option(help="an agent it may call; repeat for more; default: all")] = None,
    privacy: Annotated[str, typer.Option(help="open, local_only or strict: the widest its requests may be")] = "open",
    learn: Annotated[bool, typer.Option(help="agents may learn from its requests")] = True,
    requests_per_minute: Annotated[float | None, typer.Option(min=0.01)] = None,
    tokens_per_minute: Annotated[float | None, typer.Option(min=0.01)] = None,
    usd_per_day: Annotated[float | None, typer.Option(min=0, help="budget of a UTC day")] = None,
    usd_per_month: Annotated[float | None, typer.Option(min=0, help="budget of a UTC month")] = None,
) -> None:
    """Make a key; its secret is printed this once.

    Example: pawl keys create client ci --agent functional-negative --privacy local_only --requests-per-minute 60
    """
    wanted: Role | None = next((r for r in get_args(Role) if r == role), None)
    if wanted is None:
        raise NotAllowed(f"no role {role!r}; there are: {', '.join(get_args(Role))}")
    mode: Privacy | None = next((m for m in get_args(Privacy) if m == privacy), None)
    if mode is None:
        raise NotAllowed(f"no privacy mode {privacy!r}; there are: {', '.join(get_args(Privacy))}")
    settings = Settings()
    agents = tuple(agent or ())
    if agents and (strange := set(agents) - {a.name for a in bootstrap.fleet(settings).agents} - {"embeddings"}):
        raise NotAllowed(f"no agent {', '.join(sorted(strange))} in {settings.fleet}")
    limits = LimitsSpec(
        requests_per_minute=requests_per_minute,
        tokens_per_minute=tokens_per_minute,
        usd_per_day=usd_per_day,
        usd_per_month=usd_per_month,
    )
    control = bootstrap.control(settings)
    key, secret = control.create_key(wanted, name, KeyTerms(agents=agents, privacy=mode, limits=limits, learn=learn))
    control.audit("key created", name, {"key": key.id, "role": role}, time.time())
    typer.echo(f"{key.id}  {key.role}  {key.name}", err=True)
    typer.echo(secret)


@app.command("list")
def show() -> None:
    """All keys, without their secrets."""
    for key in bootstrap.control(Settings()).keys():  # noqa: SIM118 - no dictionary
        terms = key.terms.model_dump(exclude_defaults=True)
        said = "  ".join(f"{k}={v}" for k, v in {**terms.pop("limits", {}), **terms}.items())
        typer.echo(f"{key.id}  {key.role:9} {'revoked' if key.revoked else 'active ':7} {key.name}  {said}".rstrip())


@app.command("rotate")
def rotate(
    key_id: KeyId,
    keep: Annotated[float, typer.Option(min=0, help="hours in which the old secret still works")] = 24.0,
) -> None:
    """Give a key a new secret, printed this once; limits, budgets and history stay with the key."""
    control = bootstrap.control(Settings())
    now = time.time()
    secret = control.rotate_key(key_id, now + keep * 3600)
    if secret is None:
        raise NotAllowed(f"there is no active key {key_id}; see `pawl keys list`")
    control.audit("key rotated", key_id, {"key": key_id, "old_until": now + keep * 3600}, now)
    typer.echo(secret)


@app.command("revoke")
def revoke(key_id: KeyId) -> None:
    """A revoked key stops working within a second."""
    control = bootstrap.control(Settings())
    if not control.revoke_key(key_id):
        raise NotAllowed(f"there is no active key {key_id}; see `pawl keys list`")
    control.audit("key revoked", key_id, {"key": key_id}, time.time())
