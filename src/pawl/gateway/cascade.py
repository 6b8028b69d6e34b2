"""The cheap check of a local answer that decides whether a stronger model is asked too."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

import jsonschema_rs
import orjson

from pawl.fleet.routing import CascadeSpec
from pawl.gateway.exchange import Asked, Heard, said

log = logging.getLogger("pawl.cascade")
Grader = Callable[[list[dict[str, Any]], str], float]
_BACKTRACKS = 100_000  # of a schema's pattern: a few milliseconds


async def passes(cascade: CascadeSpec, asked: Asked, heard: Heard, grader: Grader | None) -> bool:
    """Whether the answer is good enough to be the client's. What cannot be checked passes."""
    if cascade.check == "schema":
        return fits(asked.body.get("response_format"), heard.text)
    if grader is None:
        return True
    try:
        return await asyncio.to_thread(grader, said(asked), heard.text) >= cascade.min_score
    except Exception as e:
        log.info("an answer could not be graded: %r", e)
        return True


def fits(shape: Any, text: str) -> bool:
    """Whether a text is what `response_format` asked for (pure)."""
    if not isinstance(shape, dict) or shape.get("type") not in ("json_schema", "json_object"):
        return True
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError:
        return False
    if shape["type"] == "json_object":
        return isinstance(value, dict)
    schema = shape.get("json_schema")
    if not isinstance(schema, dict) or not isinstance(schema.get("schema"), dict):
        return True
    try:
        options = jsonschema_rs.FancyRegexOptions(backtrack_limit=_BACKTRACKS)
        # Offline: a `$ref` in a client's schema must not make the gateway fetch files or addresses.
        validator = jsonschema_rs.validator_for(schema["schema"], pattern_options=options, offline=True)
    except (ValueError, jsonschema_rs.ReferencingError) as e:
        log.info("a client's JSON schema cannot be used: %s", e)
        return True
    return validator.is_valid(value)
