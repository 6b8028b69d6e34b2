"""Kubernetes' API as a pod sees it: JSON over HTTPS, with its service account's token.

Source: kubernetes.io, "Accessing the Kubernetes API from a Pod". Tokens are renewed on disk (about hourly), so the
file is read again for every request.
"""

from __future__ import annotations

import http.client
import json
import ssl
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from pawl.errors import NotAllowed, ServerNotUp, StaleWrite

_WITHIN_S = 10.0


class KubernetesApi:
    """GET and PUT of objects."""

    def __init__(self, api: str, account: Path) -> None:
        """`api`: https://host:port. `account`: the folder with `token` and `ca.crt`."""
        self._api, self._account = api.rstrip("/"), account

    def get(self, path: str) -> dict[str, Any]:
        """An object or a list. ServerNotUp, NotAllowed."""
        return self._call("GET", path, None)

    def put(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """Replace an object. StaleWrite where its `resourceVersion` is not the current one."""
        return self._call("PUT", path, json.dumps(body).encode())

    def _call(self, method: str, path: str, data: bytes | None) -> dict[str, Any]:
        try:
            token = (self._account / "token").read_text().strip()
            context = ssl.create_default_context(cafile=str(self._account / "ca.crt"))
        except OSError as e:
            raise ServerNotUp(f"no service account in {self._account} ({e}): run inside a pod that has one") from e
        headers = {"authorization": f"Bearer {token}", "accept": "application/json"}
        if data is not None:
            headers["content-type"] = "application/json"
        request = urllib.request.Request(self._api + path, data, headers, method=method)  # noqa: S310
        try:
            with urllib.request.urlopen(request, timeout=_WITHIN_S, context=context) as answer:  # noqa: S310
                found: dict[str, Any] = json.loads(answer.read())
                return found
        except urllib.error.HTTPError as e:
            said = e.read()[:500].decode(errors="replace")
            if e.code == 409:
                raise StaleWrite(f"{path} was changed by another writer: {said}") from e
            if e.code in (401, 403):
                raise NotAllowed(f"the service account may not {method} {path} ({e.code}): {said}") from e
            raise ServerNotUp(f"Kubernetes answered {e.code} to {method} {path}: {said}") from e
        except (urllib.error.URLError, OSError, http.client.HTTPException, ValueError) as e:
            raise ServerNotUp(f"Kubernetes' API at {self._api} does not answer ({e})") from e
