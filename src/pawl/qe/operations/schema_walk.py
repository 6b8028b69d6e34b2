"""Walks JSON Schemas and payloads side by side: rebuilds schemas, renames and orders members (pure)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

_ONE = ("items", "additionalProperties", "not", "contains")
_MANY = ("oneOf", "anyOf", "allOf", "prefixItems")
_SAME_PLACE = ("oneOf", "anyOf", "allOf")


def rebuilt(schema: Any, change: Callable[[dict[str, Any]], dict[str, Any]]) -> Any:
    """The schema with `change` applied to every schema in it, innermost first, and then to itself."""
    if not isinstance(schema, dict):
        return schema
    made = dict(schema)
    if isinstance(made.get("properties"), dict):
        made["properties"] = {k: rebuilt(v, change) for k, v in made["properties"].items()}
    for key in _ONE:
        if key in made:
            made[key] = rebuilt(made[key], change)
    for key in _MANY:
        if isinstance(made.get(key), list):
            made[key] = [rebuilt(s, change) for s in made[key]]
    return change(made)


def keywords(schema: Any) -> set[str]:
    """All keywords in use, in the schema and in those in it."""
    found: set[str] = set()
    rebuilt(schema, lambda s: found.update(s) or s)  # type: ignore[func-returns-value]
    return found


def member_names(schema: Any) -> list[str]:
    """Names of all members at any depth, each once, innermost first."""
    found: dict[str, None] = {}

    def look(sub: dict[str, Any]) -> dict[str, Any]:
        properties, required = sub.get("properties"), sub.get("required")
        found.update(dict.fromkeys(properties if isinstance(properties, dict) else ()))
        found.update(dict.fromkeys(r for r in (required if isinstance(required, list) else ()) if isinstance(r, str)))
        return sub

    rebuilt(schema, look)
    return list(found)


def places(schema: Any) -> Iterator[tuple[tuple[str | None, ...], dict[str, Any]]]:
    """Every member and item schema with its place: names from the outside in, None for the items of a list."""
    if not isinstance(schema, dict):
        return
    properties = schema.get("properties")
    inner: list[tuple[str | None, Any]] = list(properties.items()) if isinstance(properties, dict) else []
    inner.append((None, schema.get("items")))
    for step, sub in inner:
        if isinstance(sub, dict):
            yield (step,), sub
            for place, deeper in places(sub):
                yield (step, *place), deeper


def replaced(schema: dict[str, Any], place: tuple[str | None, ...], new: dict[str, Any]) -> dict[str, Any]:
    """The schema with another one at a place."""
    if not place:
        return new
    step, rest = place[0], place[1:]
    if step is None:
        return {**schema, "items": replaced(schema["items"], rest, new)}
    properties = schema["properties"]
    return {**schema, "properties": {**properties, step: replaced(properties[step], rest, new)}}


def changed_at(value: Any, place: tuple[str | None, ...], change: Callable[[Any], Any]) -> Any:
    """The payload with `change` applied to what stands at a place, as far as anything does."""
    if not place:
        return change(value)
    step, rest = place[0], place[1:]
    if step is None:
        return [changed_at(v, rest, change) for v in value] if isinstance(value, list) else value
    if isinstance(value, dict) and step in value:
        return {**value, step: changed_at(value[step], rest, change)}
    return value


def reshaped(value: Any, schema: Any, names: dict[str, str], *, ordered: bool = False) -> Any:
    """The payload with the schema's members renamed, and where wanted in the schema's order.

    Only what the schema calls a member is touched: the keys of a map stay, whatever they are called.
    """
    return _reshaped(value, [schema], names, ordered)


def _reshaped(value: Any, schemas: list[Any], names: dict[str, str], ordered: bool) -> Any:
    here = list(_here(schemas))
    if isinstance(value, list):
        items = [s["items"] for s in here if "items" in s]
        first = [s["prefixItems"] for s in here if isinstance(s.get("prefixItems"), list)]
        return [
            _reshaped(v, [*items, *(f[i] for f in first if i < len(f))], names, ordered) for i, v in enumerate(value)
        ]
    if not isinstance(value, dict):
        return value
    members: dict[str, list[Any]] = {}
    for s in here:
        for k, sub in s["properties"].items() if isinstance(s.get("properties"), dict) else ():
            members.setdefault(k, []).append(sub)
    for s in here:
        for r in s["required"] if isinstance(s.get("required"), list) else ():
            members.setdefault(r, [])
    others = [s["additionalProperties"] for s in here if "additionalProperties" in s]
    keys = list(value)
    if ordered:
        rank = {k: i for i, k in enumerate(members)}
        keys.sort(key=lambda k: rank.get(k, len(rank)))
    return {
        names.get(k, k) if k in members else k: _reshaped(value[k], members.get(k, others), names, ordered)
        for k in keys
    }


def _here(schemas: list[Any]) -> Iterator[dict[str, Any]]:
    """All schemas that speak of the same place."""
    for s in schemas:
        if isinstance(s, dict):
            yield s
            for key in _SAME_PLACE:
                if isinstance(s.get(key), list):
                    yield from _here(s[key])
            yield from _here([s.get("not")])


def type_of(schema: dict[str, Any]) -> str:
    """The type that a schema names, the first besides null; where it names none, what its members tell, or ""."""
    kind = schema.get("type")
    if isinstance(kind, list):
        kind = next((k for k in kind if k != "null"), None)
    return kind if isinstance(kind, str) else "object" if "properties" in schema else ""
