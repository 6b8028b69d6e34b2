"""Operations of a user's own OpenAPI 3.0 or 3.1 document."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any
from urllib.parse import quote

import orjson

from pawl.errors import SourceError
from pawl.qe.operations.openapi_schema import Unusable, pointer, resolve
from pawl.qe.operations.operation import Operation
from pawl.qe.operations.validator import compiled

_METHODS = ("post", "put", "patch", "delete", "get")
_MAX_BYTES = 32 * 1024 * 1024
_NAME = re.compile(r"[^A-Za-z0-9_-]+")
_SPACE = re.compile(r"\s")


def operations(location: str, max_schema_chars: int = 400) -> list[Operation]:
    """Operations with a JSON object as body whose compact schema is at most that long, sorted by id.

    `source` is the operation's first tag; without tags the first path segment that tells the paths apart. Local
    references are resolved; operations with recursive or outside references, or with a schema that is none, are left
    out.

    Args:
        location: path or http(s) URL of the document, JSON or YAML.
        max_schema_chars: longest compact schema, in characters.

    Raises:
        SourceError: not readable, not OpenAPI 3, or without a usable operation; the text says which.
    """
    document = _parse(location, _read(location))
    version = document.get("openapi")
    if "swagger" in document:
        raise SourceError(f"{location} is Swagger {document['swagger']}: convert it to OpenAPI 3 first")
    if not isinstance(version, str) or not version.startswith("3."):
        raise SourceError(f"{location} is not an OpenAPI 3 document: its field `openapi` is {version!r}")
    bodies = [b for b in _bodies(document) if b is not None]
    if not bodies:
        raise SourceError(f"{location} has no operation with a JSON body (requestBody of application/json)")
    found: dict[str, Operation] = {}
    shortest, unusable = None, 0
    name_source = _source_namer(bodies)
    for method, path, operation, body in bodies:
        try:
            schema = resolve(document, body)
        except Unusable:
            unusable += 1
            continue
        if not isinstance(schema, dict) or not schema.get("properties"):
            unusable += 1
            continue
        try:
            # Dates in YAML become Python dates, and names of members may be numbers there; the schema is JSON.
            text = orjson.dumps(schema, default=str, option=orjson.OPT_NON_STR_KEYS)
            compiled(orjson.loads(text))
        except (TypeError, SourceError):  # a number that JSON readers do not take, or rules that are none
            unusable += 1
            continue
        length = len(text.decode())
        shortest = length if shortest is None else min(shortest, length)
        if length > max_schema_chars:
            continue
        source = _NAME.sub("-", name_source(path, operation)) or "api"
        name = _NAME.sub("-", str(operation.get("operationId") or f"{method}{path}")).strip("-")
        op = Operation(
            id=f"{source}.{name}",
            source=source,
            method=method.upper(),
            path=_SPACE.sub(lambda found: quote(found[0]), path),  # a prompt's first line is cut at spaces
            schema=orjson.loads(text),
        )
        found[op.id] = op
    if not found:
        hint = (
            f"the shortest schema has {shortest} characters: set max_schema_chars to at least that"
            if shortest is not None
            else "every body is recursive, refers outside the document, or is not an object with properties"
        )
        raise SourceError(f"{location}: none of {len(bodies)} operations with a JSON body is usable; {hint}")
    return sorted(found.values(), key=lambda o: o.id)


def _read(location: str) -> bytes:
    if location.startswith(("http://", "https://")):
        import urllib.error
        import urllib.request

        try:
            with urllib.request.urlopen(location, timeout=20) as answer:  # noqa: S310 - scheme checked above
                data: bytes = answer.read(_MAX_BYTES + 1)
        except (urllib.error.URLError, TimeoutError, OSError, ValueError) as error:
            raise SourceError(f"{location} cannot be fetched ({error}): check the URL, or save it to a file") from error
    else:
        try:
            with Path(location).open("rb") as file:
                data = file.read(_MAX_BYTES + 1)
        except OSError as error:
            raise SourceError(f"{location} cannot be read ({error.strerror}): check `location` in the fleet") from error
    if len(data) > _MAX_BYTES:
        raise SourceError(f"{location} is larger than {_MAX_BYTES // 2**20} MiB: cut it to the operations you need")
    return data


def _parse(location: str, data: bytes) -> dict[str, Any]:
    try:
        document = orjson.loads(data)
    except ValueError:
        from ruamel.yaml import YAML
        from ruamel.yaml.error import YAMLError

        try:
            document = YAML(typ="safe", pure=True).load(data.decode("utf-8-sig"))
        except (YAMLError, UnicodeDecodeError, ValueError, RecursionError) as error:
            first = str(error).strip().splitlines()[:1]
            raise SourceError(f"{location} is neither JSON nor YAML: {first[0] if first else error}") from error
    if not isinstance(document, dict):
        raise SourceError(f"{location} is not an OpenAPI 3 document: it holds no object at its top")
    return document


def _bodies(document: dict[str, Any]) -> list[tuple[str, str, dict[str, Any], Any]]:
    """Method, path, operation and unresolved body schema of each operation with a JSON body."""
    found = []
    paths = document.get("paths")
    for path, item in (paths if isinstance(paths, dict) else {}).items():
        if not isinstance(item, dict):
            continue
        for method in _METHODS:
            operation = item.get(method)
            if not isinstance(operation, dict):
                continue
            body = operation.get("requestBody")
            try:
                body = pointer(document, body["$ref"]) if isinstance(body, dict) and "$ref" in body else body
            except Unusable:
                continue
            content = body.get("content") if isinstance(body, dict) else None
            for kind, media in (content if isinstance(content, dict) else {}).items():
                plain = str(kind).partition(";")[0].strip().lower()
                if (plain == "application/json" or plain.endswith("+json")) and isinstance(media, dict):
                    found.append((method, str(path), operation, media.get("schema")))
                    break
    return found


def _source_namer(bodies: list[tuple[str, str, dict[str, Any], Any]]) -> Any:
    """How a source is named: the first of tag, 1st, 2nd, 3rd path segment that yields more than one source."""

    def by_tag(path: str, operation: dict[str, Any]) -> str:
        tags = operation.get("tags")
        return str(tags[0]) if isinstance(tags, list) and tags else by_segment(0)(path, operation)

    def by_segment(n: int) -> Any:
        def name(path: str, _operation: dict[str, Any]) -> str:
            segments = [s for s in path.split("/") if s and not s.startswith("{")] or ["root"]
            return "-".join(segments[: n + 1])

        return name

    namers = (by_tag, by_segment(0), by_segment(1), by_segment(2))
    for namer in namers:
        if len({namer(path, operation) for _, path, operation, _ in bodies}) > 1:
            return namer
    return by_tag
