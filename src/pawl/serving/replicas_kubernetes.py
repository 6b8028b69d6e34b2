"""vLLM replicas that are pods of a Kubernetes namespace, found by label."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import parse_qs, quote, unquote, urlsplit

from pawl.errors import ConfigError, PawlError
from pawl.serving.kubernetes_rest import KubernetesApi
from pawl.serving.replicas_vllm import VllmReplica

SCHEME = "kubernetes"
log = logging.getLogger("pawl.serving")


class Where(NamedTuple):
    """Which pods."""

    namespace: str
    labels: str  # a label selector, e.g. app=vllm,model=small
    port: int


def where(url: str) -> Where:
    """Read `kubernetes://NAMESPACE/LABEL=VALUE[,...]?port=8000` (pure). ConfigError where it is not that."""
    parts = urlsplit(url)
    labels, namespace = unquote(parts.path.strip("/")), parts.netloc
    (port,) = parse_qs(parts.query).get("port", ["8000"])[:1]
    if parts.scheme != SCHEME or not namespace or "=" not in labels or not port.isdigit():
        raise ConfigError("PAWL_VLLM_URLS", [f"{url} is not like kubernetes://NAMESPACE/LABEL=VALUE?port=8000"])
    return Where(namespace, labels, int(port))


def addresses(pods: dict[str, Any], port: int) -> list[str]:
    """The addresses of a list of pods that run and are not told to end, in a stable order (pure).

    Whether vLLM answers there is for the reconciler to find out: a pod is no member before it does.
    """
    found = []
    for pod in pods.get("items", []):
        status = pod.get("status", {})
        ip = status.get("podIP")
        if status.get("phase") == "Running" and ip and not pod["metadata"].get("deletionTimestamp"):
            found.append(f"http://[{ip}]:{port}" if ":" in ip else f"http://{ip}:{port}")
    return sorted(found)


class PodReplicas:
    """Looks the pods up at every call; while the API does not answer, those of the last time stay."""

    def __init__(self, api: KubernetesApi, at: Where, base_dir: Path | None) -> None:
        self._api, self._at, self._base_dir = api, at, base_dir
        self._known: dict[str, VllmReplica] = {}
        self._silent = False

    def __call__(self) -> Sequence[VllmReplica]:
        path = f"/api/v1/namespaces/{quote(self._at.namespace)}/pods?labelSelector={quote(self._at.labels)}"
        try:
            urls = addresses(self._api.get(path), self._at.port)
        except PawlError as e:
            if not self._silent:  # once, not every second
                log.warning("pods cannot be listed, the known ones stay: %s", e)
            self._silent = True
            return list(self._known.values())
        self._silent = False
        self._known = {url: self._known.get(url) or VllmReplica(url, self._base_dir) for url in urls}
        return list(self._known.values())
