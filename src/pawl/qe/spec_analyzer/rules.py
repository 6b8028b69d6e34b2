"""The rules that a JSON Schema lays on a body, as a flat list (pure)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import orjson

# Keywords that bound a value, in the order of an answer; others (titles, examples, defaults) demand nothing.
_BOUNDS = ("type", "enum", "const", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf",
           "minLength", "maxLength", "pattern", "format", "minItems", "maxItems", "uniqueItems",
           "minProperties", "maxProperties")  # fmt: skip
_DEEPEST = 8


class Rule(NamedTuple):
    """One demand: where (`a/b/*`, empty for the body itself), which keyword, and its value as JSON text."""

    at: str
    rule: str
    value: str


def rules(schema: dict[str, Any]) -> list[Rule]:
    """All rules in the order of the schema: bounds of a place, then which members it must have, then its members."""
    return list(_walk(schema, "", 0))


def told(found: list[Rule]) -> list[dict[str, Any]]:
    """Rules as an answer tells them."""
    return [{"at": r.at, "rule": r.rule, "value": orjson.loads(r.value)} for r in found]


def read(rows: Any) -> list[Rule] | None:
    """Rules of an answer; None where it is no list of them."""
    if not isinstance(rows, list):
        return None
    found = []
    for row in rows:
        if not isinstance(row, dict) or not isinstance(row.get("at"), str) or not isinstance(row.get("rule"), str):
            return None
        if "value" not in row:
            return None
        try:
            found.append(Rule(row["at"], row["rule"], _json(row["value"])))
        except TypeError:  # nested deeper than it can be written
            return None
    return found


def _walk(schema: Any, at: str, depth: int) -> Iterator[Rule]:
    if not isinstance(schema, dict) or depth > _DEEPEST:
        return
    for keyword in _BOUNDS:
        # That the body is an object goes without saying.
        if keyword in schema and not (depth == 0 and keyword == "type"):
            yield Rule(at, keyword, _json(schema[keyword]))
    required = schema.get("required")
    for name in required if isinstance(required, list) else ():
        if isinstance(name, str):
            yield Rule(_below(at, name), "required", "true")
    if schema.get("additionalProperties") is False:
        yield Rule(at, "additionalProperties", "false")
    members = schema.get("properties")
    for name, member in members.items() if isinstance(members, dict) else ():
        yield from _walk(member, _below(at, str(name)), depth + 1)
    if isinstance(schema.get("items"), dict):
        yield from _walk(schema["items"], _below(at, "*"), depth + 1)


def _below(at: str, name: str) -> str:
    return f"{at}/{name}" if at else name


def _json(value: Any) -> str:
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS).decode()
