"""A JSON Schema (2020-12, as pydantic writes it) as Markdown tables, a table for each object (pure)."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

Schema = Mapping[str, Any]
_BOUNDS = {
    "minimum": "≥ {}", "exclusiveMinimum": "> {}", "maximum": "≤ {}", "exclusiveMaximum": "< {}",
    "minLength": "at least {} characters", "maxLength": "at most {} characters",
    "minItems": "at least {}", "maxItems": "at most {}", "pattern": "matches `{}`",
}  # fmt: skip

_WORDS = {"null": "nothing", "string": "text", "integer": "whole number", "boolean": "true or false"}


def tables(schema: Schema) -> Iterator[str]:
    """The object itself, then each object that it refers to, in the order in which they are met; lines of Markdown."""
    definitions = schema.get("$defs", {})
    met: list[str] = []
    yield from _table(schema, met)
    for name in met:  # grows while it is read
        yield f"\n## {name}"
        told = definitions[name].get("description", "")
        yield f"{told}\n"
        yield from _table(definitions[name], met)


def _table(schema: Schema, met: list[str]) -> Iterator[str]:
    if "properties" not in schema:
        yield f"One of: {kind_of(schema, met)}."
        return
    yield "| field | type | default | what it is |"
    yield "|---|---|---|---|"
    needed = set(schema.get("required", ()))
    for name, field in schema["properties"].items():
        default = "**required**" if name in needed else default_of(field)
        told = " ".join([field.get("description", ""), *_bounds(field)]).strip()
        yield f"| `{name}` | {kind_of(field, met)} | {default} | {escaped(told)} |"


def kind_of(schema: Schema, met: list[str]) -> str:
    """The type in words; what it refers to is noted in `met` and linked to."""
    if ref := schema.get("$ref"):
        name = str(ref).rsplit("/", 1)[-1]
        if name not in met:
            met.append(name)
        return f"[{name}](#{name.lower()})"
    if "const" in schema:
        return f"`{json.dumps(schema['const'])}`"
    if "enum" in schema:
        return ", ".join(f"`{x}`" for x in schema["enum"])
    for key in ("anyOf", "oneOf", "allOf"):
        if key in schema:
            return " or ".join(dict.fromkeys(kind_of(one, met) for one in schema[key]))
    kind = schema.get("type", "anything")
    if isinstance(kind, list):
        return " or ".join(kind_of({**schema, "type": one}, met) for one in kind)
    if kind == "array":
        several = schema.get("prefixItems") or ([schema["items"]] if isinstance(schema.get("items"), dict) else [])
        return "list of " + (" and ".join(dict.fromkeys(kind_of(one, met) for one in several)) or "anything")
    if kind == "object" and isinstance(schema.get("additionalProperties"), dict):
        return f"map to {kind_of(schema['additionalProperties'], met)}"
    return _WORDS.get(kind, str(kind))


def default_of(field: Schema) -> str:
    """What stands where nothing is given; of objects only that they have defaults of their own."""
    if "default" not in field:
        return ""
    value = field["default"]
    if isinstance(value, dict) and value:
        return "its own"
    return "" if value is None else f"`{json.dumps(value, ensure_ascii=False)}`".replace("|", "\\|")


def escaped(text: str) -> str:
    """On one line, and no end of a table's cell."""
    return " ".join(text.split()).replace("|", "\\|")


def _bounds(field: Schema) -> Iterator[str]:
    sides = [field, *(one for one in field.get("anyOf", ()) if one.get("type") != "null")]
    found = [told.format(escaped(str(side[key]))) for side in sides for key, told in _BOUNDS.items() if key in side]
    if found:
        yield f"({'; '.join(dict.fromkeys(found))})"
