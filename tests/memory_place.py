"""The workplace of a step, with all that is real but the registry."""

from __future__ import annotations

from dataclasses import dataclass

from pawl.improvement.workplace import Workplace
from pawl.registry.memory_registry import MemoryRegistry


@dataclass(frozen=True)
class Place(Workplace):
    """The workplace with a registry in memory."""

    memory: MemoryRegistry

    @property
    def registry(self) -> MemoryRegistry:  # type: ignore[override]
        return self.memory
