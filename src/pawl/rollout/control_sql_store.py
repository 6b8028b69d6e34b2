"""What the control database's SQL is written against: transactions and reads, on SQLite or PostgreSQL alike.

The dialect is what both understand: `?` for parameters, `ON CONFLICT`, numbers for truths, and a column `rowid` that
rises with each row where the order of arrival is told (SQLite has it, PostgreSQL's tables are given one).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol, TypeVar

import msgspec

S = TypeVar("S", bound=msgspec.Struct)


class Cursor(Protocol):
    """What a statement found or did."""

    @property
    def rowcount(self) -> int: ...
    def fetchone(self) -> Any: ...
    def fetchall(self) -> list[Any]: ...


class Transaction(Protocol):
    """Statements of one transaction."""

    def execute(self, query: str, args: Sequence[Any] = (), /) -> Cursor: ...
    def executemany(self, query: str, rows: Iterable[Sequence[Any]], /) -> Any: ...


class SqlStore(ABC):
    """A database that has one writer at a time."""

    @abstractmethod
    def transaction(self) -> AbstractContextManager[Transaction]:
        """One transaction that holds the write lock from its start, so that what it reads is still true at commit.
        ControlUnavailable where the database cannot be used, NotAllowed where its role may not write that."""

    @abstractmethod
    def rows(self, query: str, args: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
        """What one statement reads. Raises as `transaction`."""

    @abstractmethod
    def close(self) -> None:
        """Let go of the database."""

    def row(self, query: str, args: tuple[Any, ...] = ()) -> tuple[Any, ...] | None:
        """The first that it reads."""
        found = self.rows(query, args)
        return found[0] if found else None

    def all_of(self, kind: type[S], query: str, args: tuple[Any, ...] = ()) -> list[S]:
        """Bodies, decoded."""
        return [decode(body, kind) for (body,) in self.rows(query, args)]

    def one_of(self, kind: type[S], query: str, args: tuple[Any, ...] = ()) -> S | None:
        """The first body, decoded."""
        found = self.row(query, args)
        return decode(found[0], kind) if found else None


def encode(value: msgspec.Struct) -> bytes:
    """A body as it is stored."""
    # The rollout's spec is a pydantic model, which msgspec passes to the hook.
    return msgspec.json.encode(value, enc_hook=lambda spec: spec.model_dump(mode="json"))


def decode(body: bytes | memoryview, kind: type[S]) -> S:
    """What `encode` made."""
    return msgspec.json.decode(body, type=kind, dec_hook=_spec)


def _spec(model: Any, data: Any) -> Any:
    return model.model_validate(data)
