"""`pawl registry`: what the registry's server needs of Pawl."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import typer

from pawl import bootstrap
from pawl.errors import NotAllowed
from pawl.settings import Settings

TELEMETRY = "pawl-telemetry"
app = typer.Typer(no_args_is_help=True, help="The model registry's webhook, keys and accounts.")


@app.command("webhook")
def webhook() -> None:
    """Make MLflow tell the gateway of approval codes and moved aliases. May be repeated; the secret is written anew."""
    from pawl.gateway.api.control import secret_of
    from pawl.registry.mlflow_webhooks import ensure

    settings = Settings()
    target = f"{settings.gateway_url}/control/mlflow"
    with _secrets("webhook"):
        secret = secret_of(bootstrap.control(settings))
    made = ensure(settings.mlflow_url, target, secret)
    typer.echo(f"webhook {made} of {settings.mlflow_url} delivers to {target}")


@app.command("encryption-key")
def encryption_key() -> None:
    """Print MLFLOW_WEBHOOK_SECRET_ENCRYPTION_KEY for MLflow's server, the same each time."""
    with _secrets("encryption-key"):
        key = webhook_encryption_key(Settings())
    typer.echo(key)


@app.command("accounts")
def accounts() -> None:
    """Make or renew Pawl's own accounts where MLflow asks for accounts: promotion, and the gateway's traces.

    Call it as MLflow's administrator: MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD. Their passwords are made
    and kept in the control database: on PostgreSQL as its owner, for a gateway's role may not read them.
    """
    from pawl.registry.mlflow_accounts import ensure_promoter, ensure_telemetry

    settings = Settings()
    telemetry = bootstrap.fleet(settings).gateway.telemetry
    url, promoter = settings.mlflow_url, settings.mlflow_promoter
    with _secrets("accounts"):
        promotes, traces = (bootstrap.mlflow_password(settings, account) for account in (promoter, TELEMETRY))
    ensure_promoter(url, promoter, promotes)
    ensure_telemetry(url, TELEMETRY, traces, telemetry.experiment_id)
    typer.echo(f"{promoter} moves aliases from now on, and nobody else; set PAWL_MLFLOW_ACCOUNTS=true for the worker")
    typer.echo(
        f"{TELEMETRY} writes traces to experiment {telemetry.experiment_id}; `pawl registry telemetry` has the headers"
    )


@app.command("telemetry")
def telemetry() -> None:
    """Print OTEL_EXPORTER_OTLP_HEADERS for the gateway, where MLflow asks for accounts. It holds a password.

    On PostgreSQL call it as the control database's owner, as `accounts`.
    """
    import base64

    with _secrets("telemetry"):
        password = bootstrap.mlflow_password(Settings(), TELEMETRY)
    pair = f"{TELEMETRY}:{password}"
    typer.echo(f"Authorization=Basic%20{base64.b64encode(pair.encode()).decode()}")


@app.command("person")
def person(name: Annotated[str, typer.Argument(help="the account's name in MLflow")]) -> None:
    """Give a person an MLflow account that reads everything and may paste codes; its password is printed this once."""
    import secrets

    from pawl.registry.mlflow_accounts import ensure_person

    password = secrets.token_urlsafe(18)
    ensure_person(Settings().mlflow_url, name, password)
    typer.echo(password)


def webhook_encryption_key(settings: Settings) -> str:
    """MLFLOW_WEBHOOK_SECRET_ENCRYPTION_KEY of this machine."""
    from pawl.registry.webhook import encryption_key

    return encryption_key(bootstrap.control(settings))


@contextmanager
def _secrets(command: str) -> Iterator[None]:
    # MLflow refuses things too: only what the control database refuses is mended by another role there.
    try:
        yield
    except NotAllowed as e:
        raise NotAllowed(
            f"`pawl registry {command}` needs a secret of the control database. Run it as the database's owner: with "
            f"the owner's PGUSER and PGPASSWORD, in compose by `docker compose run --rm control-database "
            f"python -m pawl.cli registry {command}` (docs/deploying.md). {e}"
        ) from e
