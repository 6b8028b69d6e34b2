"""MLflow's webhook to the gateway's control endpoint: it makes sure that there is one, with our secret."""

from __future__ import annotations

from typing import Any

from pawl.registry.mlflow_errors import mapped

NAME = "pawl"
EVENTS = (
    "model_version_tag.set",
    "model_version_alias.created",  # a re-pointed alias, too
    "model_version_alias.deleted",
)


def ensure(url: str, target: str, secret: str) -> str:
    """One webhook of the MLflow at `url` delivers to `target`, signed with `secret`; others of its name go. Its id.

    MLflow never shows a secret, so it is written anew each time. ServerNotUp where MLflow does not answer, PawlError
    where it refuses: it wants an account of its administrators where it asks for accounts at all.
    """
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=url, registry_uri=url)
    with mapped(url, f"setting MLflow's webhook to {target}"):
        kept = ""
        for hook in _ours(client):
            if kept:
                client.delete_webhook(hook.webhook_id)
                continue
            kept = str(hook.webhook_id)
            client.update_webhook(kept, url=target, events=list(EVENTS), secret=secret, status="ACTIVE")
        if not kept:
            about = "Approval codes in tags, and moved aliases, to Pawl's gateway"
            kept = str(client.create_webhook(NAME, target, list(EVENTS), about, secret, "ACTIVE").webhook_id)
        return kept


def _ours(client: Any) -> list[Any]:
    found, token = [], None
    while True:
        page = client.list_webhooks(page_token=token)
        found += [h for h in page if h.name == NAME]
        token = page.token
        if not token:
            return found
