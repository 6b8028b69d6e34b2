"""The gateway's own OpenAPI 3.1 document, at /openapi.json: what it demands of bodies, and what it answers (pure).

Only what the gateway itself reads is described; every other field of OpenAI's API passes through to the upstream.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pawl import __version__
from pawl.gateway.access.privacy import MODES
from pawl.gateway.api.batches import ENDPOINTS

Schema = dict[str, Any]
_TEXT: Schema = {"type": "string", "minLength": 1}
_OBJECT: Schema = {"type": "object"}
_MESSAGES: Schema = {
    "type": "array", "minItems": 1,
    "items": {"type": "object", "required": ["role"], "properties": {
        "role": {"enum": ["system", "developer", "user", "assistant", "tool"]},
        "content": {"type": ["string", "array", "null"]},
    }},
}  # fmt: skip
# Of the Responses API's items the plain message; tool calls and their outputs are taken too.
_ITEMS: Schema = {
    "type": "array", "minItems": 1,
    "items": {"type": "object", "required": ["role", "content"], "additionalProperties": False, "properties": {
        "role": {"enum": ["system", "developer", "user", "assistant"]}, "content": _TEXT,
    }},
}  # fmt: skip
_ERROR: Schema = {
    "type": "object", "required": ["error"],
    "properties": {"error": {
        "type": "object", "required": ["message", "type", "param", "code"],
        "properties": {
            "message": {"type": "string"}, "type": {"type": "string"},
            "param": {"type": ["string", "null"]}, "code": {"type": ["string", "null"]},
        },
    }},
}  # fmt: skip


def _feedback(kinds: list[str], score: Schema, required: list[str]) -> Schema:
    properties: Schema = {
        "interaction": {"type": "string", "description": "the id that the answer carried"},
        "kind": {"enum": kinds},
        "score": score,
        "detail": {"type": "object", "description": "for a correction: {completion: the right answer}"},
    }
    return {
        "type": "object", "required": ["interaction", "kind", *required], "additionalProperties": False,
        "properties": properties,
    }  # fmt: skip


_SCORE: Schema = {"type": "number", "minimum": 0, "maximum": 1}
_FEEDBACK: Schema = {"oneOf": [
    _feedback(["outcome", "rating"], _SCORE, ["score"]),
    _feedback(["accepted", "correction"], _SCORE | {"type": ["number", "null"]}, []),
]}  # fmt: skip
_EVENT: Schema = {"type": "object", "required": ["data"], "properties": {"data": {"type": "string"}}}
_METADATA: Schema = {
    "type": "object",
    "description": "told to the gateway: `id` and `source` of the task, `subject`, `learn`",
    "properties": {"learn": {"enum": ["yes", "no"], "description": "whether agents may learn from this request"}},
}
_STRATEGIES = ["privacy_first", "cost_optimized", "quality_optimized", "latency_optimized", "balanced"]
# What every answer may be beside its success.
_FAILURES = {
    "400": "the request is wrong", "401": "no valid key", "403": "not with this key, or not in this privacy mode",
    "404": "no such agent, interaction, file or batch", "405": "no such method here", "409": "not in this state",
    "413": "too large", "422": "the upstream refused it", "429": "a limit is used up", "500": "the gateway failed",
    "502": "no upstream answered", "503": "overloaded, or nobody can answer now",
}  # fmt: skip


def document(agents: Sequence[str]) -> dict[str, Any]:
    """The document for a fleet with these agents."""
    model: Schema = {"type": "string", "enum": list(agents), "description": "the agent"}
    common: Schema = {"stream": {"type": "boolean"}, "metadata": _METADATA, "user": {"type": "string"}}
    chat = _body({"model": model, "messages": _MESSAGES, **common}, ["model", "messages"])
    completion = _body(
        {"model": model, "prompt": {"oneOf": [_TEXT, {"type": "array", "minItems": 1}]}, **common}, ["model", "prompt"]
    )
    response = _body({"model": model, "input": {"oneOf": [_TEXT, _ITEMS]}, **common}, ["model", "input"])
    embedding = _body(
        {"model": {"type": "string"}, "input": {"oneOf": [_TEXT, {"type": "array", "minItems": 1}]}}, ["model", "input"]
    )
    feedback = {"oneOf": [_FEEDBACK, {"type": "array", "items": _FEEDBACK, "minItems": 1, "maxItems": 1000}]}
    batch = _body(
        {
            "input_file_id": {"type": "string"},
            "endpoint": {"enum": list(ENDPOINTS)},
            "completion_window": {"const": "24h"},
            "metadata": {"type": ["object", "null"], "additionalProperties": {"type": "string"}},
        },
        ["input_file_id", "endpoint", "completion_window"],
    )
    listed = _body({"object": {"const": "list"}, "data": {"type": "array"}}, ["object", "data"])
    named = _body({"id": {"type": "string"}, "object": {"type": "string"}}, ["id", "object"])
    hints = [_header("x-pawl-session", "keeps a session on one arm of a rollout", {"type": "string"}),
             _header("x-pawl-privacy", "narrows where this request may go", {"enum": list(MODES)}),
             _header("x-pawl-strategy", "overrides the agent's strategy", {"enum": _STRATEGIES})]  # fmt: skip
    return {
        "openapi": "3.1.0",
        "info": {"title": "Pawl gateway", "version": __version__},
        "security": [{"key": []}],
        "components": {"securitySchemes": {"key": {"type": "http", "scheme": "bearer"}}},
        "paths": {
            "/v1/chat/completions": {"post": _operation("Answer a conversation", named, chat, hints)},
            "/v1/completions": {"post": _operation("Continue a text", named, completion, hints)},
            "/v1/responses": {"post": _operation("Answer, by the Responses API", named, response, hints)},
            "/v1/embeddings": {"post": _operation("Embed texts", listed, embedding, hints[1:2])},
            "/v1/models": {"get": _operation("The agents this key may call", listed)},
            "/v1/feedback": {"post": _operation("Say how answers did", listed, feedback)},
            "/v1/files": {"get": _operation("The key's files", listed)},
            "/v1/files/{id}": {
                "get": _operation("A file", named, at=True),
                "delete": _operation("Forget a file", named, at=True),
            },
            "/v1/batches": {
                "get": _operation("The key's batches", listed),
                "post": _operation("Ask many", named, batch),
            },
            "/v1/batches/{id}": {"get": _operation("A batch", named, at=True)},
            "/v1/batches/{id}/cancel": {"post": _operation("Begin no further line", named, at=True)},
            "/v1/rollouts": {"get": _operation("Routes and open rollouts; for operators", listed)},
            "/healthz": {"get": _operation("Whether the process lives", _OBJECT)},
            "/readyz": {"get": _operation("Whether it can answer", _OBJECT)},
        },
    }  # fmt: skip


def _body(properties: Schema, required: list[str]) -> Schema:
    return {"type": "object", "required": required, "properties": properties}


def _header(name: str, description: str, schema: Schema) -> Schema:
    return {"name": name, "in": "header", "required": False, "description": description, "schema": schema}


def _operation(
    summary: str, answer: Schema, body: Schema | None = None, headers: Sequence[Schema] = (), *, at: bool = False
) -> Schema:
    def shown(what: str, schema: Schema) -> Schema:
        return {"description": what, "content": {"application/json": {"schema": schema}}}

    path = [{"name": "id", "in": "path", "required": True, "schema": _TEXT}] if at else []
    success = shown("done", answer)
    if headers and "stream" in (body or {}).get("properties", {}):
        success["content"]["text/event-stream"] = {"schema": _EVENT}
    made: Schema = {
        "summary": summary,
        "parameters": [*path, *headers],
        "responses": {"200": success} | {status: shown(what, _ERROR) for status, what in _FAILURES.items()},
    }
    if body is not None:
        made["requestBody"] = {"required": True, "content": {"application/json": {"schema": body}}}
    return made
