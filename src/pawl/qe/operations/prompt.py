"""How an operation stands in a prompt: `METHOD path id`, a line break, and the compact schema of its body."""

from __future__ import annotations

import re
from typing import Any

import orjson

from pawl.errors import SourceError
from pawl.qe.item import Messages
from pawl.qe.operations.operation import Operation
from pawl.qe.task import text_of, user_text

MAX_SCHEMA_BYTES = 64 * 1024
# The first is the one that `messages` writes; the others are the same in other words, for variants of examples.
_HEADS = tuple(
    re.compile(head)
    for head in (
        r"(?P<method>[A-Z]+) (?P<path>\S+) (?P<id>\S+)",
        r"Operation (?P<id>\S+): (?P<method>[A-Z]+) (?P<path>\S+)",
        r"(?P<method>[A-Z]+) (?P<path>\S+) \(operation (?P<id>\S+)\)",
    )
)


def asking(system: str, op: Operation, more: str = "") -> Messages:
    """The task as chat messages: a short system sentence, then the operation; `more` stands in lines after it."""
    text = f"{told(op)}\n{more}" if more else told(op)
    return [{"role": "system", "content": system}, {"role": "user", "content": text}]


def told(op: Operation) -> str:
    """An operation in a prompt: `METHOD path id` and the compact schema."""
    return f"{op.method} {op.path} {op.id}\n{orjson.dumps(op.schema).decode()}"


def parsed(messages: list[dict[str, Any]]) -> Operation:
    """The operation that a prompt asks about, read from its last user message.

    Raises:
        SourceError: the prompt is not one of this task, so that its answer cannot be graded.
    """
    text = next((text_of(m.get("content")) for m in reversed(messages) if m.get("role") == "user"), "")
    head, _, body = text.strip().partition("\n")
    match = next((m for form in _HEADS if (m := form.fullmatch(head.strip()))), None)
    if match is None or len(body.encode(errors="replace")) > MAX_SCHEMA_BYTES:
        raise SourceError(
            "not a prompt about an operation: the user message must be `METHOD path id`, a line break, and the "
            f"JSON Schema of the body (at most {MAX_SCHEMA_BYTES} bytes)"
        )
    try:
        schema = orjson.loads(body)
    except ValueError as error:
        try:  # more may follow a schema in one line: what an earlier step of a chain found
            schema = orjson.loads(body.partition("\n")[0])
        except ValueError:
            raise SourceError(f"the prompt's JSON Schema is not JSON: {error}") from error
    if not isinstance(schema, dict):
        raise SourceError("the prompt's JSON Schema must be a JSON object")
    name = match["id"]
    return Operation(id=name, source=name.partition(".")[0], method=match["method"], path=match["path"], schema=schema)


def operation_of(messages: list[dict[str, Any]]) -> Operation | None:
    """The same; None where the prompt is not one of this task."""
    try:
        return parsed(messages)
    except SourceError:
        return None


def content_of(messages: list[dict[str, Any]]) -> str:
    """`METHOD path name` without the service's prefix, and the compact schema; a foreign prompt's user text."""
    op = operation_of(messages)
    if op is None:
        return user_text(messages)
    name = op.id.partition(".")[2] or op.id
    return f"{op.method} {op.path} {name}\n{orjson.dumps(op.schema).decode()}"
