"""Prefect's REST API, the few calls that need no Prefect here: events, and runs of deployments."""

from __future__ import annotations

import json
import logging
import urllib.error
import urllib.request
from datetime import UTC, datetime
from typing import Any

from pawl.errors import PawlError, ServerNotUp
from pawl.rollout.events import Event

log = logging.getLogger("pawl.events")
PATIENCE_S = 5.0


class PrefectApi:
    """The server at `url`, e.g. http://127.0.0.1:8740/api."""

    def __init__(self, url: str, patience_s: float = PATIENCE_S) -> None:
        self._url, self._patience_s = url.rstrip("/"), patience_s

    def emit(self, event: Event) -> bool:
        """Hand an event over; where the server does not take it, the log says so."""
        body = {
            "id": event.id,
            "occurred": datetime.fromtimestamp(event.at, UTC).isoformat(),
            "event": event.name,
            "resource": {"prefect.resource.id": event.resource, "pawl.agent": event.agent, **_labels(event)},
            "related": [],
            "payload": {"agent": event.agent, "version": event.version, **event.detail},
        }
        try:
            self._ask("POST", "/events", [body])
        except PawlError as e:
            log.warning("%s of %s version %s was not told: %s", event.name, event.agent, event.version, e)
            return False
        return True

    def start_run(self, deployment: str, parameters: dict[str, Any]) -> str:
        """A run of `flow-name/deployment-name` as soon as a worker is free; its id.

        ServerNotUp where the server does not answer, PawlError where it knows no such deployment.
        """
        found = self._ask("GET", f"/deployments/name/{deployment}")
        body = {"state": {"type": "SCHEDULED"}, "parameters": parameters}
        return str(self._ask("POST", f"/deployments/{found['id']}/create_flow_run", body)["id"])

    def _ask(self, method: str, path: str, body: Any = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(  # noqa: S310 - the settings' own address
            self._url + path, data, {"content-type": "application/json"}, method=method
        )
        try:
            with urllib.request.urlopen(request, timeout=self._patience_s) as answer:  # noqa: S310
                return json.loads(answer.read() or b"null")
        except urllib.error.HTTPError as e:
            raise PawlError(f"Prefect at {self._url} refused {method} {path} ({e.code}): {_said(e)}") from e
        except (OSError, ValueError) as e:
            raise ServerNotUp(f"Prefect at {self._url} does not answer ({e}); start it, or look at its log") from e


def _labels(event: Event) -> dict[str, str]:
    """What triggers can tell events of one name apart by: they match labels and not payloads."""
    return {f"pawl.{name}": str(event.detail[name]) for name in ("alias", "stage", "retrain") if name in event.detail}


def _said(error: urllib.error.HTTPError) -> str:
    try:
        return error.read(300).decode(errors="replace")
    except OSError:
        return ""
