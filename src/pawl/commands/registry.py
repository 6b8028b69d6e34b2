"""`pawl registry`: what the registry's server needs of Pawl."""

from __future__ import annotations

import typer

from pawl import bootstrap
from pawl.settings import Settings

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


def webhook_encryption_key(settings: Settings) -> str:
    """The Fernet key under which MLflow keeps webhooks' secrets. Without one it forgets them with its process."""
    import base64

    return base64.urlsafe_b64encode(bootstrap.control(settings).secret("mlflow-webhook-encryption")).decode()
