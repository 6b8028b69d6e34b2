"""Text of models and clients as a person can read it, and answers as a person corrected them (pure)."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterator

_TOKEN = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"|[{}\[\],:]|[^\s{}\[\],:"]+')
_OPENING, _CLOSING = ("{", "["), ("}", "]")
_INDENT = "  "


def readable(text: str) -> str:
    """For eyes: JSON is laid out, also where a line of it stands among other text; nothing hides or reorders."""
    if is_json(text):
        return visible(laid_out(text))
    lines = text.split("\n")
    return visible(
        "\n".join(laid_out(line) if line.lstrip()[:1] in _OPENING and is_json(line) else line for line in lines)
    )


def visible(text: str) -> str:
    """Controls, lone surrogates and direction marks by number: they could hide text or make it look like another.

    A terminal would even obey some of them (CVE-2021-42574 for the direction marks).
    """
    return "".join(
        c
        if c in "\n\t" or unicodedata.category(c) not in ("Cc", "Cf", "Cs")
        else f"\N{REPLACEMENT CHARACTER}{ord(c):04X}"
        for c in text
    )


def is_json(text: str) -> bool:
    """Whether it is JSON of some size, an object or a list."""
    if text.lstrip()[:1] not in _OPENING:
        return False
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def laid_out(text: str) -> str:
    """JSON with line breaks and indentation. Its tokens stay as they are: no number is rounded, no key lost."""
    return "".join(_laid_out(text))


def compact(text: str, after: str = "") -> str:
    """JSON on one line, with `after` following each comma and colon and no other blanks outside of its strings."""
    return "".join(t + after if t in (",", ":") else t for t in _TOKEN.findall(text))


def corrected(original: str, typed: str) -> str | None:
    """A correction in the form in which the agent answers; None where nothing was changed.

    Raises:
        ValueError: the answer was JSON and the correction is none; the text says where.
    """
    if not is_json(original):
        return typed if typed.strip() and typed != original else None
    if not typed.strip():
        return None
    try:
        json.loads(typed)
    except (ValueError, RecursionError) as e:
        raise ValueError(f"The corrected answer is no longer JSON: {e}") from e
    if compact(typed) == compact(original):
        return None
    if "\n" in original.strip():
        return typed
    return compact(typed, after="" if compact(original) == original.strip() else " ")


def _laid_out(text: str) -> Iterator[str]:
    depth, before = 0, ""
    for token in _TOKEN.findall(text):
        if token in _CLOSING:
            depth -= 1
            if before not in _OPENING:
                yield "\n" + _INDENT * depth
        elif before in _OPENING or before == ",":
            yield "\n" + _INDENT * depth
        elif before == ":":
            yield " "
        yield token
        depth += token in _OPENING
        before = token
