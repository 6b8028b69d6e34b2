"""The port to a traffic engine that splits whole models itself, where the gateway is not what splits them."""

from __future__ import annotations

from typing import Protocol

import msgspec


class Shares(msgspec.Struct, frozen=True):
    """What part of an agent's requests each backend gets, in percent; together 100.

    The backends are called as fleet.yaml calls them; who stands behind which: `pawl.rollout.backends`.
    """

    champion: int
    challenger: int


class TrafficEngine(Protocol):
    """One agent's split. Sessions are not kept together unless the engine does so itself."""

    def read(self) -> Shares:
        """The split in force. ServerNotUp, ConfigError where the engine's route is not what it must be."""
        ...

    def write(self, wanted: Shares) -> bool:
        """Put it in force; False where it was so already. StaleWrite where others keep changing the same object."""
        ...
