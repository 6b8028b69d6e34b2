"""OpenAPI 3.0 and 3.1 schemas as plain JSON Schema 2020-12 without references (pure)."""

from __future__ import annotations

from typing import Any
from urllib.parse import unquote

from pawl.qe.operations.validator import pattern_compiles

# Keywords that constrain a body; everything else (titles, examples, formats) only costs tokens.
_PLAIN = (
    "type", "enum", "const", "minLength", "maxLength", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum",
    "multipleOf", "minItems", "maxItems", "uniqueItems", "required", "minProperties", "maxProperties",
)  # fmt: skip
_ONE = ("items", "not", "additionalProperties", "propertyNames", "contains")
_MANY = ("oneOf", "anyOf", "prefixItems")
_MAX_NODES = 2_000


class Unusable(Exception):
    """Recursive, too large, or with a reference that leads nowhere or outside."""


def pointer(document: dict[str, Any], ref: Any) -> Any:
    """What a local reference (`#/components/...`) points at, through further references.

    Raises:
        Unusable: outside the document, missing, or a circle.
    """
    for _ in range(32):
        if not isinstance(ref, str) or not ref.startswith("#/"):
            raise Unusable(f"reference {ref!r} leads outside the document")
        target: Any = document
        for part in ref[2:].split("/"):
            key = unquote(part).replace("~1", "/").replace("~0", "~")
            if isinstance(target, list) and key.isdigit() and int(key) < len(target):
                target = target[int(key)]
            elif isinstance(target, dict) and key in target:
                target = target[key]
            else:
                raise Unusable(f"reference {ref!r} leads nowhere")
        if not (isinstance(target, dict) and set(target) == {"$ref"}):
            return target
        ref = target["$ref"]
    raise Unusable("references form a circle")


def resolve(document: dict[str, Any], schema: Any) -> Any:
    """The schema with references inlined, `allOf` merged, `nullable` and boolean exclusive bounds in 2020-12 form.

    Read-only members are left out: a client does not send them.

    Raises:
        Unusable: it cannot be expressed without references.
    """
    return _resolve(document, schema, (), [_MAX_NODES])


def _resolve(document: dict[str, Any], schema: Any, above: tuple[str, ...], left: list[int]) -> Any:
    left[0] -= 1
    if left[0] < 0:
        raise Unusable("too large")
    if isinstance(schema, bool):
        return schema
    if not isinstance(schema, dict):
        raise Unusable(f"a schema must be an object, not {type(schema).__name__}")
    if "$ref" in schema:
        ref = schema["$ref"]
        if ref in above:
            raise Unusable(f"{ref} is recursive")
        target = _resolve(document, pointer(document, ref), (*above, ref), left)
        rest = {k: v for k, v in schema.items() if k != "$ref"}
        beside = _resolve(document, rest, above, left) if rest else {}
        return _merge([target, beside]) if beside else target
    made = {k: schema[k] for k in _PLAIN if k in schema}
    properties = schema.get("properties")
    if isinstance(properties, dict):
        sent = {k: v for k, v in properties.items() if not (isinstance(v, dict) and v.get("readOnly") is True)}
        made["properties"] = {k: _resolve(document, v, above, left) for k, v in sent.items()}
        if "required" in made:
            made["required"] = [r for r in made["required"] if r in sent or r not in properties]
    for key in _ONE:
        if key in schema:
            made[key] = _resolve(document, schema[key], above, left)
    for key in _MANY:
        if isinstance(schema.get(key), list):
            made[key] = [_resolve(document, s, above, left) for s in schema[key]]
    pattern = schema.get("pattern")
    if isinstance(pattern, str) and pattern_compiles(pattern):
        made["pattern"] = pattern
    made = _modern(made, schema.get("nullable") is True)
    if isinstance(schema.get("allOf"), list):
        parts = [_resolve(document, s, above, left) for s in schema["allOf"]]
        return _merge([*parts, made] if made else parts)
    return made


def _modern(made: dict[str, Any], nullable: bool) -> dict[str, Any]:
    """3.0 spellings in 2020-12: boolean exclusive bounds, `nullable`; empty `required` goes."""
    for bound, exclusive in (("minimum", "exclusiveMinimum"), ("maximum", "exclusiveMaximum")):
        if isinstance(made.get(exclusive), bool):
            strict = made.pop(exclusive)
            if strict and bound in made:
                made[exclusive] = made.pop(bound)
    if made.get("additionalProperties") is True or made.get("additionalProperties") == {}:
        del made["additionalProperties"]
    if not made.get("required", True):
        del made["required"]
    if nullable and isinstance(made.get("type"), str):
        made["type"] = [made["type"], "null"]
        if "enum" in made and None not in made["enum"]:
            made["enum"] = [*made["enum"], None]
    if "type" in made:  # first, as people write it
        made = {"type": made["type"], **made}
    return made


def _merge(parts: list[Any]) -> Any:
    """One schema for all of `parts`; what cannot be merged stays in an `allOf`."""
    if any(p is False for p in parts):
        return False
    merged: dict[str, Any] = {}
    rest: list[Any] = []
    for part in (p for p in parts if isinstance(p, dict)):
        left_over = {}
        for key, value in part.items():
            if key not in merged or merged[key] == value:
                merged[key] = value
            elif key == "properties":
                both = {k: _merge([merged[key][k], v]) if k in merged[key] else v for k, v in value.items()}
                merged[key] = {**merged[key], **both}
            elif key == "required":
                merged[key] = [*merged[key], *(r for r in value if r not in merged[key])]
            elif key == "allOf":
                rest.extend(value)
            else:
                left_over[key] = value
        if left_over:
            rest.append(left_over)
    if rest:
        merged["allOf"] = [*merged.get("allOf", []), *rest]
    return merged
