"""`pawl registry`: what the registry's server needs of Pawl."""

from __future__ import annotations

from typing import Annotated

import typer

from pawl import bootstrap
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
    made = ensure(settings.mlflow_url, target, secret_of(bootstrap.control(settings)))
    typer.echo(f"webhook {made} of {settings.mlflow_url} delivers to {target}")


@app.command("encryption-key")
def encryption_key() -> None:
    """Print MLFLOW_WEBHOOK_SECRET_ENCRYPTION_KEY for MLflow's server, the same each time."""
    typer.echo(webhook_encryption_key(Settings()))


@app.command("accounts")
def accounts() -> None:
    """Make or renew Pawl's own accounts where MLflow asks for accounts: promotion, and the gateway's traces.

    Call it as MLflow's administrator: MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD.
    """
    from pawl.registry.mlflow_accounts import ensure_promoter, ensure_telemetry

    settings = Settings()
    telemetry = bootstrap.fleet(settings).gateway.telemetry
    url, promoter = settings.mlflow_url, settings.mlflow_promoter
    ensure_promoter(url, promoter, bootstrap.mlflow_password(settings, promoter))
    ensure_telemetry(url, TELEMETRY, bootstrap.mlflow_password(settings, TELEMETRY), telemetry.experiment_id)
    typer.echo(f"{promoter} moves aliases from now on, and nobody else; set PAWL_MLFLOW_ACCOUNTS=true for the worker")
    typer.echo(
        f"{TELEMETRY} writes traces to experiment {telemetry.experiment_id}; `pawl registry telemetry` has the headers"
    )


@app.command("telemetry")
def telemetry() -> None:
    """Print OTEL_EXPORTER_OTLP_HEADERS for the gateway, where MLflow asks for accounts. It holds a password."""
    import base64

    pair = f"{TELEMETRY}:{bootstrap.mlflow_password(Settings(), TELEMETRY)}"
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
