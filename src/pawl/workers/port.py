"""What runs pieces of work, wherever that is."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

R = TypeVar("R")

# What a piece says while it runs, and what it is answered: an exception that the answer raises is raised in the piece.
Tell = Callable[[Any], Any]
Told = Callable[[int, Any], Any]  # the piece's number, what it says


class Done(NamedTuple, Generic[R]):
    """A piece that ended: `result`, or `error` where it raised."""

    number: int
    result: R | None
    error: Exception | None = None

    def get(self) -> R:
        """The result. Raises what the piece raised."""
        if self.error is not None:
            raise self.error
        return self.result  # type: ignore[return-value]


class Workers(Protocol):
    """Runs pieces of one kind of work."""

    @property
    def elsewhere(self) -> bool:
        """Whether pieces run in other processes: what they are given and give is pickled, and they know no ports."""
        ...

    def slots(self, *, trains: bool = False) -> int:
        """How many pieces run at a time. `trains`: a piece wants a GPU where there are any."""
        ...

    def run(
        self,
        work: Callable[..., R],
        pieces: Iterable[tuple[Any, ...]],
        told: Told,
        *,
        trains: bool = False,
    ) -> Generator[Done[R]]:
        """`work(tell, *piece)` for each piece, as they end; the first has number 0.

        A piece is taken when there is room for it, so that `pieces` may depend on what ended before. `told` is called
        here, in the caller's thread. Whoever stops asking for more stops the pieces that run.

        Raises ServerNotUp where the machines are not reached any more.
        """
        ...
