"""What MLflow's client raises, as errors that a person may meet."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from pawl.errors import NotAllowed, NotThere, PawlError, ServerNotUp

MISSING = ("RESOURCE_DOES_NOT_EXIST", "NOT_FOUND")


@contextmanager
def mapped(url: str, doing: str) -> Iterator[None]:
    """Around calls of the MLflow at `url`, which are for `doing`.

    ServerNotUp where it does not answer, NotAllowed where the account may not, NotThere for what is not there,
    PawlError for what is refused otherwise.
    """
    from mlflow.exceptions import MlflowException
    from requests import RequestException

    try:
        yield
    except (MlflowException, RequestException) as e:
        code = getattr(e, "error_code", "")
        if code in MISSING:
            raise NotThere(f"{doing}: the registry has no such entry ({e}); look at {url}") from e
        if getattr(e, "get_http_status_code", int)() in (401, 403) or "error code 401" in str(e):
            raise NotAllowed(
                f"{doing}: MLflow does not let this account ({e}); set MLFLOW_TRACKING_USERNAME and "
                "MLFLOW_TRACKING_PASSWORD to one that may"
            ) from e
        # A server that cannot be reached has no error code of its own: the client wraps the connection's error.
        if isinstance(e, RequestException) or isinstance(e.__cause__ or e.__context__, (RequestException, OSError)):
            raise ServerNotUp(f"{doing}: MLflow at {url} does not answer; start it, or look at its log") from e
        raise PawlError(f"{doing}: MLflow refused ({code}): {e}") from e
