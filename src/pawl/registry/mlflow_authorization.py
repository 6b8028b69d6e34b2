"""What MLflow's basic-auth asks about each request: who it is, and that one account alone moves aliases.

It runs in MLflow's server, which is told of it by `authorization_function` in mlflow/basic_auth.ini. MLflow's own
grants cannot separate the right to move an alias from the right to make versions, and its administrators skip them;
this is asked before either.
"""

from __future__ import annotations

from functools import cache

from flask import Response, request
from mlflow.server.auth import authenticate_request_basic_auth, make_forbidden_response
from werkzeug.datastructures import Authorization

from pawl.settings import Settings

ALIAS_PATH = "/mlflow/registered-models/alias"


def moves_alias(method: str, path: str) -> bool:
    """Whether a request sets or deletes an alias of a registered model (pure); reading one is free."""
    return method.upper() not in ("GET", "HEAD", "OPTIONS") and path.rstrip("/").endswith(ALIAS_PATH)


def authorize() -> Authorization | Response:
    """The caller's identity, or the answer that refuses: 401 without a valid one, 403 for an alias and another account.

    Every alias, of whatever model: the request's body is not looked into, so that nothing hides in it.
    """
    found: Authorization | Response = authenticate_request_basic_auth()
    if isinstance(found, Response):
        return found
    if moves_alias(request.method, request.path) and found.username != _promoter():
        refused: Response = make_forbidden_response()
        return refused
    return found


@cache
def _promoter() -> str:
    return Settings().mlflow_promoter
