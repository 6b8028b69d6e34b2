"""All that a person may have written into a prompt, wherever it stands."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

_WORDS_OF_THE_API = {"role", "type"}


def texts_of(messages: Sequence[Mapping[str, Any]]) -> list[str]:
    """Every text of a prompt, arguments of tools and parts of contents too, in order."""
    found: list[str] = []
    with_texts(messages, found.append)
    return found


def with_texts(messages: Sequence[Mapping[str, Any]], change: Callable[[str], str | None]) -> list[dict[str, Any]]:
    """The prompt with each text replaced by what `change` makes of it."""

    def walk(value: Any) -> Any:
        if isinstance(value, str):
            return change(value)
        if isinstance(value, list):
            return [walk(v) for v in value]
        if isinstance(value, dict):
            return {k: v if k in _WORDS_OF_THE_API else walk(v) for k, v in value.items()}
        return value

    return [walk(dict(m)) for m in messages]


def in_turn(texts: Iterable[str]) -> Callable[[str], str]:
    left = iter(texts)
    return lambda before: next(left)
