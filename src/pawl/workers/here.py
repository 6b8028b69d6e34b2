"""Pieces of work one after the other, in this process."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from functools import partial
from typing import Any, TypeVar

from pawl.workers.port import Done, Told

R = TypeVar("R")


class Here:
    """This process."""

    elsewhere = False

    def slots(self, *, trains: bool = False) -> int:
        """One: what is asked and trained here uses all cores by itself."""
        return 1

    def run(
        self,
        work: Callable[..., R],
        pieces: Iterable[tuple[Any, ...]],
        told: Told,
        *,
        trains: bool = False,
    ) -> Generator[Done[R]]:
        """Each piece when it is asked for."""
        for number, piece in enumerate(pieces):
            try:
                done = Done(number, work(partial(told, number), *piece))
            except Exception as e:
                done = Done(number, None, e)
            yield done
