"""Operations of a user's own OpenAPI 3 document, from a path or a URL."""

from __future__ import annotations

import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from pawl.errors import SourceError
from pawl.qe.operation import Operation

_METHODS = ("post", "put", "patch", "delete")
_DEEPEST = 8
_MAX_BYTES = 32 << 20


def operations(location: str) -> list[Operation]:
    """Operations with a JSON body; references inlined. The source is the first tag, else the first path segment.

    SourceError says what is wrong: not readable, not OpenAPI 3, or nothing with a JSON body.
    """
    document = _read(location)
    version = document.get("openapi")
    if not isinstance(version, str) or not version.startswith("3"):
        raise SourceError(f"{location} is no OpenAPI 3 document: `openapi` is {version!r}; convert it to 3.0 or 3.1")
    paths = document.get("paths")
    found = []
    for path, item in (paths if isinstance(paths, dict) else {}).items():
        for method in _METHODS:
            operation = item.get(method) if isinstance(item, dict) else None
            if not isinstance(operation, dict):
                continue
            schema = _body(document, operation)
            if schema is None:
                continue
            segments = [s for s in str(path).split("/") if s and not s.startswith("{")]
            tags = operation.get("tags") or []
            source = "-".join(str(tags[0] if tags else segments[0] if segments else "root").split())
            name = "-".join(str(operation.get("operationId") or f"{method}{path}").split())
            found.append(
                Operation(id=f"{source}.{name}", source=source, method=method.upper(), path=str(path), schema=schema)
            )
    if not found:
        raise SourceError(f"{location} has no operation with a JSON body that can be read")
    return found


def _read(location: str) -> dict[str, Any]:
    try:
        if location.startswith(("http://", "https://")):
            with urllib.request.urlopen(location, timeout=30) as answer:  # noqa: S310 - the scheme was checked
                data = answer.read(_MAX_BYTES)
        else:
            data = Path(location).read_bytes()
        document = YAML(typ="safe", pure=False).load(data.decode())  # JSON is YAML
    except (OSError, urllib.error.URLError, UnicodeDecodeError) as e:
        raise SourceError(f"{location} cannot be read: {e}") from e
    except YAMLError as e:
        raise SourceError(f"{location} is neither JSON nor YAML: {str(e).splitlines()[0]}") from e
    if not isinstance(document, dict):
        raise SourceError(f"{location} is no OpenAPI 3 document: its top level is no object")
    return document


def _body(document: dict[str, Any], operation: dict[str, Any]) -> dict[str, Any] | None:
    body = _target(document, operation.get("requestBody"))
    content = body.get("content") if isinstance(body, dict) else None
    if not isinstance(content, dict):
        return None
    media = next((m for name, m in content.items() if "json" in str(name)), None)
    schema = media.get("schema") if isinstance(media, dict) else None
    if not isinstance(schema, dict):
        return None
    made = _inline(document, schema, 0)
    return made if isinstance(made, dict) and made.get("properties") else None


def _target(document: dict[str, Any], node: Any, hops: int = 0) -> Any:
    """What a local reference points to; None where it points nowhere or to the outside."""
    if not isinstance(node, dict) or "$ref" not in node:
        return node
    reference = str(node["$ref"])
    if not reference.startswith("#/") or hops > _DEEPEST:
        return None
    found: Any = document
    for part in reference[2:].split("/"):
        found = found.get(part.replace("~1", "/").replace("~0", "~")) if isinstance(found, dict) else None
    return _target(document, found, hops + 1)


def _inline(document: dict[str, Any], node: Any, depth: int) -> Any:
    """A schema without references; what is deeper than the bound is anything."""
    node = _target(document, node)
    if depth > _DEEPEST or not isinstance(node, dict):
        return {} if not isinstance(node, bool) else node
    made: dict[str, Any] = {}
    for part in node.get("allOf", []):
        inlined = _inline(document, part, depth + 1)
        made["properties"] = made.get("properties", {}) | inlined.get("properties", {})
        made["required"] = [*made.get("required", []), *inlined.get("required", [])]
        made |= {k: v for k, v in inlined.items() if k not in ("properties", "required")}
    for key, value in node.items():
        if key == "properties" and isinstance(value, dict):
            inlined = {k: _inline(document, v, depth + 1) for k, v in value.items()}
            made["properties"] = made.get("properties", {}) | inlined
        elif key in ("items", "additionalProperties") and isinstance(value, dict):
            made[key] = _inline(document, value, depth + 1)
        elif key in ("anyOf", "oneOf") and isinstance(value, list):
            made[key] = [_inline(document, v, depth + 1) for v in value]
        elif key == "required" and isinstance(value, list):
            made["required"] = [*made.get("required", []), *value]
        elif key in ("type", "enum", "const", "format", "pattern", "minLength", "maxLength", "minimum", "maximum",
                     "minItems", "maxItems", "uniqueItems", "multipleOf", "properties"):  # fmt: skip
            made[key] = value
        elif key in ("exclusiveMinimum", "exclusiveMaximum") and not isinstance(value, bool):
            made[key] = value
    if node.get("nullable") and isinstance(made.get("type"), str):
        made["type"] = [made["type"], "null"]
    if not made.get("required"):
        made.pop("required", None)
    if made.get("properties"):
        made.setdefault("type", "object")
    return made
