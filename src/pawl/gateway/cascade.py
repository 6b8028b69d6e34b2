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


async def refusal(cascade: CascadeSpec, asked: Asked, heard: Heard, grader: Grader | None) -> float | None:
    """The score (0..1) of an answer that is not good enough to be the client's; None where it is.

    What has not the demanded form scores 0. What cannot be checked is let through.
    """
    if cascade.check == "schema":
        return None if fits(asked.body.get("response_format"), heard.text) else 0.0
    if grader is None:
        return None
    try:
        score = await asyncio.to_thread(grader, said(asked), heard.text)
    except Exception as e:
        log.info("an answer could not be graded: %r", e)
        return None
    return None if score >= cascade.min_score else score


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
