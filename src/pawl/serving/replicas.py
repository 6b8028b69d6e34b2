"""The port to vLLM replicas: where they are, and what can be done on one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from pawl.serving.plan import Seen


class Replica(Protocol):
    """One replica. Every method blocks, for seconds at worst.

    All raise ServerNotUp where it does not answer, ModelFileError where it refuses, or where an adapter is unsound.
    """

    @property
    def url(self) -> str:
        """Its address, without `/v1`; names it in logs and metrics."""
        ...

    def look(self) -> Seen:
        """What it lists. ServerNotUp too where it says of itself that it is not healthy."""
        ...

    def busy(self) -> frozenset[str]:
        """The adapters with requests under way; empty where it does not tell."""
        ...

    def load(self, name: str, path: str) -> None:
        """Load an adapter from a folder, after looking at its files; nothing happens where it is there already."""
        ...

    def verify(self, name: str) -> None:
        """It is listed and gives one token."""
        ...

    def unload(self, name: str) -> None:
        """Take it off; nothing happens where it is not there."""
        ...


# Found anew at each look: on Kubernetes pods come and go.
Replicas = Callable[[], Sequence[Replica]]
