"""Rows of a user's JSON Lines file: one JSON object a line, plain or gzip-packed."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path
from typing import Any, NamedTuple

import orjson

from pawl.errors import SourceError

_MAX_BYTES = 512 * 1024 * 1024  # unpacked
_GZIP = b"\x1f\x8b"


class Row(NamedTuple):
    """One line of a file. `line` counts from 1."""

    location: str
    line: int
    fields: dict[str, Any]

    def text(self, field: str) -> str:
        """The text of a field that must be there and not empty; SourceError names file, line and field."""
        value = self.fields.get(field)
        if not isinstance(value, str) or not value.strip():
            raise self.wrong(f"field `{field}` must be a text, it is {_shown(value)}")
        return value

    def optional(self, field: str) -> str:
        """The text of a field, or "" where it is absent, null or empty; SourceError where it is no text."""
        value = self.fields.get(field)
        if value is None:
            return ""
        if not isinstance(value, str):
            raise self.wrong(f"field `{field}` must be a text, it is {_shown(value)}")
        return value

    def number(self, field: str) -> float:
        """A finite number, which may stand as text; SourceError where it is none."""
        value = self.fields.get(field)
        try:
            found = float(value) if isinstance(value, str | int | float) and not isinstance(value, bool) else None
        except ValueError:
            found = None
        if found is None or found != found or abs(found) == float("inf"):
            raise self.wrong(f"field `{field}` must be a number, it is {_shown(value)}")
        return found

    def whole(self, field: str) -> int | None:
        """A whole number from 0 on, which may stand as text; None where the field is absent or empty."""
        if self.fields.get(field) in (None, ""):
            return None
        found = self.number(field)
        if found < 0 or found != int(found):
            raise self.wrong(f"field `{field}` must be a whole number from 0 on, it is {_shown(self.fields[field])}")
        return int(found)

    def wrong(self, what: str) -> SourceError:
        """The error that says what is wrong with this row."""
        return SourceError(f"{self.location}, line {self.line}: {what}")


def read(location: str) -> list[Row]:
    """All rows of a file, without blank lines.

    Raises:
        SourceError: not readable, too large, not JSON Lines, or empty; the text names the line.
    """
    try:
        data = Path(location).read_bytes()
        if data.startswith(_GZIP):
            with gzip.open(location) as packed:
                data = packed.read(_MAX_BYTES + 1)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise SourceError(f"{location} is damaged ({error}): pack it anew") from error
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise SourceError(f"{location} cannot be read ({why}): check `location` in the fleet") from error
    if len(data) > _MAX_BYTES:
        raise SourceError(f"{location} holds more than {_MAX_BYTES // 2**20} MiB: split it")
    rows = []
    for line, text in enumerate(data.split(b"\n"), start=1):
        if not text.strip():
            continue
        try:
            found = orjson.loads(text)
        except ValueError as error:
            raise SourceError(f"{location}, line {line}: not JSON: {error}") from error
        if not isinstance(found, dict):
            raise SourceError(f"{location}, line {line}: a row must be a JSON object, it is {_shown(found)}")
        rows.append(Row(location, line, found))
    if not rows:
        raise SourceError(f"{location} holds no rows: each line must be a JSON object")
    return rows


def _shown(value: Any) -> str:
    return "absent" if value is None else repr(value)[:60]
