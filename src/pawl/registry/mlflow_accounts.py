"""MLflow's accounts: the one that promotes, the one that sends traces, and people's.

All of it is done as an administrator of MLflow: MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD.
"""

from __future__ import annotations

from typing import Any

from pawl.registry.mlflow_errors import mapped

PAGE = 200
_TAKEN = "RESOURCE_ALREADY_EXISTS"


def ensure_promoter(url: str, account: str, password: str) -> None:
    """The account that trains, registers and moves aliases; it manages what was registered before it, too.

    What it creates from now on is its own by MLflow's rule. May be repeated; it writes the password anew.
    """
    with mapped(url, f"setting up the account {account}"):
        _ensure(url, account, password)
        client = _mlflow(url)
        for model in _all(client.search_registered_models):
            _grant(url, account, "registered_model", model.name, "MANAGE")
        for experiment in _all(client.search_experiments):
            _grant(url, account, "experiment", experiment.experiment_id, "MANAGE")


def ensure_telemetry(url: str, account: str, password: str, experiment_id: str) -> None:
    """The account of the gateway's traces: it may write into one experiment and nothing else."""
    with mapped(url, f"setting up the account {account}"):
        _ensure(url, account, password)
        _grant(url, account, "experiment", experiment_id, "EDIT")


def ensure_person(url: str, account: str, password: str) -> None:
    """A person who reads everything and may tag versions, so paste codes; nothing else. An approval still takes the
    code: the account says nothing about who approves."""
    with mapped(url, f"setting up the account {account}"):
        _ensure(url, account, password)
        _grant(url, account, "registered_model_version", "*", "EDIT")


def _ensure(url: str, account: str, password: str) -> None:
    from mlflow.exceptions import MlflowException

    client = _accounts(url)
    try:
        client.create_user(account, password)
    except MlflowException as e:
        if e.error_code != _TAKEN:
            raise
        client.update_user_password(account, password)


def _grant(url: str, account: str, kind: str, name: str, permission: str) -> None:
    """A grant that was there before gives way to this one."""
    from mlflow.exceptions import MlflowException

    client = _accounts(url)
    try:
        client.grant_user_permission(account, kind, name, permission)
    except MlflowException as e:
        if e.error_code != _TAKEN:
            raise
        client.revoke_user_permission(account, kind, name)
        client.grant_user_permission(account, kind, name, permission)


def _accounts(url: str) -> Any:
    from mlflow.server.auth.client import AuthServiceClient

    return AuthServiceClient(url)


def _mlflow(url: str) -> Any:
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=url, registry_uri=url)


def _all(search: Any) -> list[Any]:
    found: list[Any] = []
    token = None
    while True:
        page = search(max_results=PAGE, page_token=token)
        found += page
        token = page.token
        if not token:
            return found
