"""A text that a simple pattern matches, made from the pattern's own parse tree (pure)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import lru_cache
from importlib import import_module
from itertools import cycle
from typing import Any

_MOST = 80  # characters; a longer text is of no use in an answer
# What a class of characters is filled with, the first that fits: identifiers look like a1b2c3, numbers like 123.
_PLAIN = ("a1b2c3d4e5f6g7h8i9j0", "1234567890", "abcdefghij", "A1B2C3D4E5", "-_.:/ ")
_CLASSES: dict[str, Callable[[str], bool]] = {
    "CATEGORY_DIGIT": str.isdigit,
    "CATEGORY_NOT_DIGIT": lambda c: not c.isdigit(),
    "CATEGORY_SPACE": str.isspace,
    "CATEGORY_NOT_SPACE": lambda c: not c.isspace(),
    "CATEGORY_WORD": lambda c: c.isalnum() or c == "_",
    "CATEGORY_NOT_WORD": lambda c: not (c.isalnum() or c == "_"),
}


class _NotSimple(Exception):
    """Look-arounds, references and conditions: no text is offered."""


@lru_cache(maxsize=4096)
def example(pattern: str, longer: int = 0, start: int = 0) -> str | None:
    """A text that the pattern matches from end to end, every open repeat `longer` times more than it must be.

    `start` says which of its characters a class is filled with first, so that texts differ.

    None where the pattern is not simple: look-arounds, back references, what Python's `re` does not know. The first
    branch of several is taken. Whether the text also matches in another engine, ask that one.
    """
    parser = import_module("re._parser")  # the parse tree has no public name
    try:
        text = "".join(_text(node, longer, start) for node in parser.parse(pattern))
    except (_NotSimple, ValueError, OverflowError, RecursionError, import_module("re").error):
        return None
    return text if len(text) <= _MOST else None


def _text(node: tuple[Any, Any], longer: int, start: int) -> str:
    kind, value = str(node[0]), node[1]
    if kind == "LITERAL":
        return chr(value)
    if kind in ("ANY", "NOT_LITERAL", "IN"):
        return next(_characters(node, start))
    if kind == "AT":
        return ""
    if kind == "SUBPATTERN":
        return "".join(_text(inner, longer, start) for inner in value[3])
    if kind == "BRANCH":
        return "".join(_text(inner, longer, start) for inner in value[1][0])
    if kind in ("MAX_REPEAT", "MIN_REPEAT", "POSSESSIVE_REPEAT"):
        least, most, inner = value
        times = min(int(least) + longer, int(most))
        one = list(inner)
        if len(one) == 1 and str(one[0][0]) in ("ANY", "NOT_LITERAL", "IN"):
            _bounded(times)
            characters = _characters(one[0], start)
            return "".join(next(characters) for _ in range(times))
        text = "".join(_text(i, longer, start) for i in one)
        _bounded(times * len(text))
        return text * times
    raise _NotSimple(kind)


def _bounded(length: int) -> None:
    if length > _MOST:  # repeats within repeats would fill the memory
        raise _NotSimple(length)


def _characters(node: tuple[Any, Any], start: int) -> Iterator[str]:
    """The characters that a class is filled with, again and again."""
    for plain in (*_PLAIN, "".join(map(chr, range(33, 127)))):
        fitting = [c for c in plain if _allows(node, c)]
        if fitting:
            at = start % len(fitting)
            return cycle(fitting[at:] + fitting[:at])
    raise _NotSimple


def _allows(node: tuple[Any, Any], character: str) -> bool:
    kind, value = str(node[0]), node[1]
    if kind == "ANY":
        return True
    if kind == "LITERAL":
        return bool(ord(character) == value)
    if kind == "NOT_LITERAL":
        return bool(ord(character) != value)
    if kind == "RANGE":
        return bool(value[0] <= ord(character) <= value[1])
    if kind == "CATEGORY":
        return bool(_CLASSES[str(value)](character)) if str(value) in _CLASSES else False
    if kind == "IN":
        negated = bool(value) and str(value[0][0]) == "NEGATE"
        return negated != any(_allows(one, character) for one in value[negated:])
    return False
