"""The rows of a JSON export, one after another: JSON lines, arrays of any length, objects that hold the rows."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

import orjson

from pawl.errors import SourceError
from pawl.importers.imported import Reject, encoding_of

Row = dict[str, Any]
_CHUNK = 1 << 20  # characters
_MOST = 256 << 20  # a single entry above this is no entry
_decoder = json.JSONDecoder(parse_constant=lambda name: None)  # NaN is no JSON, and no value


def rows(path: Path, inside: tuple[str, ...] = ()) -> Iterator[tuple[int, Row | Reject]]:
    """(number, row). The number is the line of JSON lines, otherwise the entry, from 1.

    An object with a list under a name of `inside` stands for that list, and a list for what is in it: pages.
    SourceError where the file cannot be read or is neither JSON nor JSON lines.
    """
    entries = 0
    for line, value in values(path):
        whole = value if isinstance(value, list) else _held(value, inside)
        for row in (value,) if whole is None else whole:
            entries += 1
            n = line if whole is None and line else entries
            reason = row.reason if isinstance(row, Reject) else "no object"
            yield n, row if isinstance(row, dict) else Reject(n, reason)


def values(path: Path) -> Iterator[tuple[int, Any]]:
    """(line, value) of JSON lines; (0, value) of a file that is one array, object or several: an array's entries."""
    try:
        with path.open(encoding=encoding_of(path)) as text:
            if _are_lines(text):
                yield from _lines(text)
            else:
                yield from ((0, value) for value in _stream(text))
    except OSError as e:
        raise SourceError(f"{path} cannot be read: {e.strerror}") from e
    except (ValueError, RecursionError) as e:  # of characters too
        raise SourceError(f"{path} is neither JSON nor JSON lines: {e}") from e


def _held(value: Any, inside: tuple[str, ...]) -> list[Any] | None:
    if not isinstance(value, dict):
        return None
    return next((value[name] for name in inside if isinstance(value.get(name), list)), None)


def _are_lines(text: TextIO) -> bool:
    """Whether the first line that is not empty is an object of its own."""
    first = text.read(1)
    while first.isspace():
        first = text.read(1)
    is_one = first == "{"  # of an array the first line may be the whole file
    if is_one:
        try:
            orjson.loads(first + text.readline())
        except orjson.JSONDecodeError:
            is_one = False
    text.seek(0)
    return is_one


def _lines(text: TextIO) -> Iterator[tuple[int, Any]]:
    for n, line in enumerate(text, start=1):
        if line.strip():
            try:
                value = orjson.loads(line)
            except orjson.JSONDecodeError as e:
                yield n, Reject(n, f"no JSON: {e}")
                continue
            yield n, value if isinstance(value, dict) else Reject(n, "no object")


def _stream(text: TextIO) -> Iterator[Any]:
    """The values one after another, the entries of an outer array each on its own."""
    buffer, place, is_inside = "", 0, False
    while True:
        while place < len(buffer) and (buffer[place].isspace() or (is_inside and buffer[place] == ",")):
            place += 1
        if place < len(buffer) and buffer[place] == ("]" if is_inside else "["):
            is_inside, place = not is_inside, place + 1
            continue
        if place < len(buffer):
            try:
                value, end = _decoder.raw_decode(buffer, place)
                if end < len(buffer):  # a number at the very end may go on
                    yield _whole(value, buffer[place:end])
                    place = end
                    continue
            except json.JSONDecodeError:
                if len(buffer) - place > _MOST:
                    raise
        more = text.read(max(_CHUNK, len(buffer) - place))
        if not more:
            break
        buffer, place = buffer[place:] + more, 0
    if place < len(buffer):
        value, end = _decoder.raw_decode(buffer, place)
        yield _whole(value, buffer[place:end])
        if buffer[end:].strip():
            raise ValueError(f"something follows after the end: {buffer[end:].strip()[:20]!r}")
    if is_inside:
        raise ValueError("it ends in the middle")


def _whole(value: Any, text: str) -> Any:
    """The value; a Reject where it holds half a character, which no text can."""
    if "\\ud" in text or "\\uD" in text:
        try:
            orjson.loads(text)
        except orjson.JSONDecodeError as e:
            return Reject(0, f"no JSON: {e}")
    return value
