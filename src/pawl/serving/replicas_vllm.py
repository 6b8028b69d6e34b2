"""vLLM replicas at addresses that do not change (`PAWL_VLLM_URLS`)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pawl.serving import vllm_adapters
from pawl.serving.plan import Seen


class VllmReplica:
    """One vLLM server, over its own HTTP API."""

    def __init__(self, url: str, base_dir: Path | None) -> None:
        """`base_dir`: the base model's folder, to check adapters against its layers; None: without."""
        self._url, self._base_dir = url, base_dir

    @property
    def url(self) -> str:
        return self._url

    def look(self) -> Seen:
        vllm_adapters.demand_health(self._url)
        return Seen(vllm_adapters.listed(self._url))

    def busy(self) -> frozenset[str]:
        return vllm_adapters.busy(self._url)

    def load(self, name: str, path: str) -> None:
        vllm_adapters.load(self._url, name, Path(path), self._base_dir)

    def verify(self, name: str) -> None:
        vllm_adapters.verify(self._url, name)

    def unload(self, name: str) -> None:
        vllm_adapters.unload(self._url, name)


def fixed(urls: Sequence[str], base_dir: Path | None) -> list[VllmReplica]:
    """The replicas at these addresses."""
    return [VllmReplica(url.rstrip("/"), base_dir) for url in urls]
