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


def shares_of(champion: int, challenger: int) -> Shares:
    """The split by two weights, in whole percents; 0 and 100 mean exactly that: one request in a thousand is not none.

    Where both weights are 0 nobody answers: no split at all, and to be written anew.
    """
    total = champion + challenger
    if not total:
        return Shares(0, 0)
    share = round(100 * challenger / total)
    if challenger not in (0, total):
        share = min(99, max(1, share))
    return Shares(100 - share, share)


class TrafficEngine(Protocol):
    """One agent's split. Sessions are not kept together unless the engine does so itself."""

    def read(self) -> Shares:
        """The split in force. ServerNotUp, ConfigError where the engine's route is not what it must be."""
        ...

    def write(self, wanted: Shares) -> bool:
        """Put it in force; False where it was so already. StaleWrite where others keep changing the same object.

        ConfigError where the engine's route is not what it must be. All to one backend, the way back, is written over
        such a route all the same, as far as it names both; where another one has a part beside them, that is told.
        """
        ...
