"""Real operations from the AWS service models that the installed botocore carries."""

from __future__ import annotations

import gzip
import re
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import orjson

from pawl.errors import SourceError
from pawl.qe.operations.operation import Operation
from pawl.qe.operations.validator import pattern_compiles

_DOTS = re.compile(r"[^A-Za-z0-9-]+")
# Java reads these differently from the validator's engine: class intersection, and POSIX classes by name.
_JAVA_ONLY = re.compile(r"&&|\[:|\\p\{(?:Alpha|Digit|Alnum|Punct|Graph|Print|Blank|Cntrl|XDigit|Space|ASCII|all)\}")
_LIMITS = {"string": ("minLength", "maxLength"), "list": ("minItems", "maxItems"), "map": ("", "maxProperties")}
_NUMBERS = {"integer": "integer", "long": "integer", "float": "number", "double": "number"}


class _Unusable(Exception):
    """This operation cannot be expressed; it is left out."""


def operations(
    max_schema_chars: int, *, min_members: int = 2, max_members: int = 6, data: Path | None = None
) -> list[Operation]:
    """Operations of every service's latest model whose input has a small JSON Schema, sorted by id.

    An operation's payload is its whole input structure, wherever the protocol puts a member (body, path, header).
    Its `source` is the service. A schema that several services share is kept once, so that no task stands on
    both sides of a split. Patterns that the validator cannot compile, or that mean something else outside Java, are
    left out of the schema; recursive and streaming inputs are left out whole.

    Args:
        max_schema_chars: longest compact schema, in characters.
        min_members: fewest top-level input members.
        max_members: most top-level input members.
        data: folder of service models, by default the installed botocore's.

    Raises:
        SourceError: no model can be read, or none holds such an operation.
    """
    folder = data or _installed()
    found: dict[str, Operation] = {}
    for path in _models(folder):
        for operation in _of_service(path, max_schema_chars, min_members, max_members):
            # Service models share shapes (rds, neptune, docdb): the first service in the alphabet keeps the task.
            found.setdefault(orjson.dumps(operation.schema).decode(), operation)
    if not found:
        raise SourceError(
            f"no operation with {min_members} to {max_members} members and a schema of at most {max_schema_chars} "
            f"characters under {folder}: raise max_schema_chars, or reinstall botocore"
        )
    return sorted(found.values(), key=lambda o: o.id)


def _installed() -> Path:
    try:
        import botocore
    except ImportError as error:
        raise SourceError("botocore is not installed: run `make install`, or use source kind openapi") from error
    return Path(botocore.__file__).parent / "data"


def _models(folder: Path) -> Iterator[Path]:
    """The latest model file of every service, in the order of their names."""
    if not folder.is_dir():
        raise SourceError(f"{folder} is not a folder of service models: reinstall botocore")
    for service in sorted(p for p in folder.iterdir() if p.is_dir()):
        versions = sorted(p for p in service.iterdir() if (p / "service-2.json.gz").is_file())
        if versions:
            yield versions[-1] / "service-2.json.gz"


def _of_service(path: Path, max_chars: int, min_members: int, max_members: int) -> Iterator[Operation]:
    try:
        model = orjson.loads(gzip.decompress(path.read_bytes()))
    except (OSError, EOFError, ValueError) as error:
        raise SourceError(f"the service model {path} cannot be read ({error}): reinstall botocore") from error
    source = _DOTS.sub("-", path.parent.parent.name)
    shapes = model["shapes"]
    for name, operation in model["operations"].items():
        shape = shapes.get(operation.get("input", {}).get("shape"))
        if shape is None or not min_members <= len(shape.get("members", {})) <= max_members:
            continue
        try:
            schema = _schema(shapes, operation["input"]["shape"], (), [max_chars])
        except _Unusable:
            continue
        if len(orjson.dumps(schema).decode()) > max_chars:
            continue
        http = operation.get("http", {})
        yield Operation(
            id=f"{source}.{name}",
            source=source,
            method=http.get("method", "POST"),
            path=http.get("requestUri", "/"),
            schema=schema,
        )


def _schema(shapes: dict[str, Any], name: str, above: tuple[str, ...], budget: list[int]) -> dict[str, Any]:
    """JSON Schema of a shape; `budget` bounds the work on schemas that turn out too long anyway."""
    shape = shapes[name]
    kind = shape["type"]
    budget[0] -= 10
    if name in above or shape.get("eventstream") or shape.get("streaming") or budget[0] < 0:
        raise _Unusable
    here = (*above, name)
    if kind == "structure":
        if shape.get("document"):
            return {}
        members = {
            member: _schema(shapes, ref["shape"], here, budget) for member, ref in shape.get("members", {}).items()
        }
        schema: dict[str, Any] = {"type": "object", "properties": members}
        if shape.get("required"):
            schema["required"] = list(shape["required"])
        return schema
    if kind == "list":
        schema = {"type": "array", "items": _schema(shapes, shape["member"]["shape"], here, budget)}
        return schema | _limits(shape, "list")
    if kind == "map":
        return {
            "type": "object",
            "additionalProperties": _schema(shapes, shape["value"]["shape"], here, budget),
        } | _limits(shape, "map")
    if kind in _NUMBERS:
        bounds = {k: shape[f] for k, f in (("minimum", "min"), ("maximum", "max")) if f in shape}
        return {"type": _NUMBERS[kind]} | bounds
    if kind == "boolean":
        return {"type": "boolean"}
    if kind in ("timestamp", "blob"):
        return {"type": "string"}
    if kind == "string":
        return _string(shape)
    raise _Unusable


def _string(shape: dict[str, Any]) -> dict[str, Any]:
    if "enum" in shape:
        return {"type": "string", "enum": list(shape["enum"])}
    schema = {"type": "string"} | _limits(shape, "string")
    pattern = shape.get("pattern")
    if pattern and not _vacuous(pattern) and not _JAVA_ONLY.search(pattern) and pattern_compiles(pattern):
        schema["pattern"] = pattern
    return schema


@lru_cache(maxsize=8192)
def _vacuous(pattern: str) -> bool:
    """Whether a pattern allows everything; it would only cost tokens."""
    return pattern in {".*", "^.*$", ".+", "^.+$", "[\\s\\S]*", "^[\\s\\S]*$", "(?s).*", "^(?s).*$"}


def _limits(shape: dict[str, Any], kind: str) -> dict[str, int]:
    low, high = _LIMITS[kind]
    limits = {}
    if low and shape.get("min", 0) > 0:
        limits[low] = int(shape["min"])
    if "max" in shape:
        limits[high] = int(shape["max"])
    return limits
