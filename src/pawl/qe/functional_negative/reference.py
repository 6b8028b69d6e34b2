"""Reference answers: explicit mutations of a minimal payload, each verified by the grader's own validator.

The stand-in for a cloud model answers with these. They are short and regular, so that a small model can learn the
task from a few hundred of them.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import msgspec
import orjson

from pawl.qe.operations.schema_walk import type_of
from pawl.qe.operations.validator import Undecided, compiled, signature

_NOTHING = object()
_SHORT = 100  # characters of a compact payload; longer ones are a last resort
_LONGEST_TOO_LONG = 24  # a payload that breaks a larger maxLength costs too many tokens
_WRONG: dict[str, Any] = {"string": 1, "integer": "a", "number": "a", "boolean": "a", "array": "a", "object": "a"}
_STRINGS = ("a", "1", "A", "aa", "a1", "aaa", "1" * 12)
FAULTS = ("valid_payload", "duplicate", "broken_json", "prose", "wrong_status")


class Mutation(msgspec.Struct, frozen=True):
    """One way to break a schema. `field` is the member's place in the schema, -1 for the body as a whole."""

    field: int
    name: str
    payload: Any
    signature: str

    @property
    def clean(self) -> bool:
        """Whether it breaks one rule only, in few tokens."""
        return ";" not in self.signature and len(orjson.dumps(self.payload)) <= _SHORT


def mutations(schema: dict[str, Any]) -> list[Mutation]:
    """All verified mutations with distinct signatures, by member, the most telling kind of each first.

    Raises:
        SourceError: the schema is not usable.
    """
    compiled(schema)  # from here on the rules are of the types that they must be
    found: dict[str, Mutation] = {}
    for field, name, payload in _candidates(schema):
        try:
            broken = signature(schema, payload)
        except (Undecided, ValueError):
            continue
        if broken and broken not in found:
            found[broken] = Mutation(field, name, payload, broken)
    return list(found.values())


def cases(schema: dict[str, Any], rng: random.Random, n: int = 3) -> list[dict[str, Any]]:
    """Up to n right and distinct cases, in the order of the schema's members; `rng` varies the members.

    Raises:
        SourceError: the schema is not usable.
    """
    found = mutations(schema)
    pool = [m for m in found if m.clean and m.field >= 0]
    fields = sorted({m.field for m in pool})
    chosen: list[Mutation] = []
    for field in sorted(rng.sample(fields, min(n, len(fields)))):
        mine = [m for m in pool if m.field == field]
        # Mostly the member's first kind: regular answers are learnt sooner. Sometimes another, so that all are seen.
        chosen.append(mine[0] if rng.random() < 0.7 else rng.choice(mine))
    rest = [m for m in found if m not in chosen]
    rest.sort(key=lambda m: (not m.clean, m.field < 0, len(orjson.dumps(m.payload))))
    chosen += rest[: n - len(chosen)]
    chosen.sort(key=lambda m: m.field if m.field >= 0 else len(found) + 99)
    return [{"name": m.name, "payload": m.payload, "expected_status": 400} for m in chosen]


def answer(schema: dict[str, Any], rng: random.Random, faulty_rate: float = 0.15) -> str:
    """An answer as compact JSON; with that probability one with a realistic fault."""
    made = cases(schema, rng)
    if rng.random() >= faulty_rate:
        return _encode(made)
    return _faulty(schema, made, rng.choice(FAULTS), rng)


def corrupt(schema: dict[str, Any], rng: random.Random) -> str:
    """A plausible but wrong answer of the right form: what poisoned training data looks like.

    Its cases say that the operation must refuse what it accepts; where no accepted payload is found, they expect
    success.
    """
    validator = compiled(schema)
    likely: list[Any] = [minimal(schema), {}, [], None]
    accepted = next((payload for payload in likely if validator.is_valid(payload)), _NOTHING)
    payload, status = ({}, 200) if accepted is _NOTHING else (accepted, rng.choice((400, 422)))
    names = rng.sample(("missing field", "wrong type", "too long", "not allowed", "out of range"), 3)
    return _encode([{"name": name, "payload": payload, "expected_status": status} for name in names])


def minimal(schema: dict[str, Any]) -> Any:
    """A short value that the schema accepts, as far as that is easy to find."""
    if "const" in schema:
        return schema["const"]
    if schema.get("enum"):
        return schema["enum"][0]
    for keyword in ("oneOf", "anyOf", "allOf"):
        if schema.get(keyword) and "type" not in schema:
            return minimal(schema[keyword][0])
    kind = type_of(schema)
    if kind == "string":
        return _string(schema)
    if kind in ("integer", "number"):
        return _number(schema)
    if kind == "boolean":
        return True
    if kind == "array":
        return [minimal(_sub(schema.get("items")))] * min(int(schema.get("minItems", 0)), 3)
    if kind == "object":
        return _required(schema)
    return "a"


def _candidates(schema: dict[str, Any]) -> Iterator[tuple[int, str, Any]]:
    properties = schema.get("properties")
    properties = properties if isinstance(properties, dict) else {}
    required = [r for r in schema.get("required", ()) if isinstance(r, str)]
    base = _required(schema)
    for i, (field, sub) in enumerate(properties.items()):
        if field in required:
            yield i, f"missing {field}", {k: v for k, v in base.items() if k != field}
        for what, value in _broken(_sub(sub)):
            # Members stand in the schema's order, as a person would write them.
            payload = {k: value if k == field else base[k] for k in properties if k == field or k in base}
            yield i, f"{field} {what}", payload
    for field in required:
        if field not in properties:
            yield -1, f"missing {field}", {k: v for k, v in base.items() if k != field}
    yield -1, "body is a list", []
    if len(required) > 1:
        yield -1, "empty body", {}
    for what, value in (("body is text", "a"), ("body is null", None)):
        yield -1, what, value


def _broken(schema: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """Values that break one rule of a member, the most telling first; not verified yet."""
    kind = type_of(schema)
    if "enum" in schema or "const" in schema:
        yield "not in enum", "x"
    if isinstance(schema.get("minimum"), int | float):
        yield "below minimum", schema["minimum"] - 1
    if kind == "string":
        if schema.get("minLength", 0) >= 1:
            yield "empty", ""
        if schema.get("maxLength", _LONGEST_TOO_LONG + 1) <= _LONGEST_TOO_LONG:
            yield "too long", "a" * (int(schema["maxLength"]) + 1)
    if kind == "array" and schema.get("minItems", 0) >= 1:
        yield "empty list", []
    yield "wrong type", _WRONG.get(kind, 1)
    if kind == "string" and "pattern" in schema:
        fill = max(int(schema.get("minLength", 1)), 1)
        if fill <= _LONGEST_TOO_LONG:
            yield "bad pattern", "!" * fill
    if isinstance(schema.get("maximum"), int | float):
        yield "above maximum", schema["maximum"] + 1
    if kind == "array":
        yield "wrong item type", [_WRONG.get(type_of(_sub(schema.get("items"))), 1)]
    yield "is a list", []


def _required(schema: dict[str, Any]) -> dict[str, Any]:
    properties = schema.get("properties", {})
    wanted = [r for r in schema.get("required", ()) if isinstance(r, str)]
    wanted = [k for k in properties if k in wanted] + [k for k in wanted if k not in properties]
    return {k: minimal(_sub(properties.get(k))) for k in wanted}


def _string(schema: dict[str, Any]) -> str:
    least = int(schema.get("minLength", 0))
    most = int(schema.get("maxLength", 1 << 30))
    match = compiled({"pattern": schema["pattern"]}).is_valid if "pattern" in schema else None
    longest: tuple[str, ...] = ("a" * least, "1" * least) if least <= _LONGEST_TOO_LONG else ()
    for value in (*_STRINGS, *longest):
        if least <= len(value) <= min(most, _LONGEST_TOO_LONG) and (match is None or match(value)):
            return value
    return "a"


def _number(schema: dict[str, Any]) -> int | float:
    low = schema.get("minimum", schema.get("exclusiveMinimum"))
    if isinstance(low, int | float) and low >= 1:
        return low + 1 if "exclusiveMinimum" in schema else low
    high = schema.get("maximum")
    return min(1, high) if isinstance(high, int | float) else 1


def _sub(schema: Any) -> dict[str, Any]:
    return schema if isinstance(schema, dict) else {}


def _encode(made: list[dict[str, Any]]) -> str:
    return orjson.dumps({"test_cases": made}).decode()


def _faulty(schema: dict[str, Any], made: list[dict[str, Any]], fault: str, rng: random.Random) -> str:
    at = rng.randrange(len(made)) if made else 0
    if fault == "broken_json" or not made:
        text = _encode(made)
        return text[: rng.randrange(len(text) // 2, len(text) - 1)]
    if fault == "prose":
        return f"Here are the test cases:\n{_encode(made)}"
    valid = minimal(schema) if fault == "valid_payload" else None
    if fault == "valid_payload" and compiled(schema).is_valid(valid):
        made[at] = made[at] | {"payload": valid}
    elif fault == "duplicate":
        made[at] = made[at - 1] if len(made) > 1 else made[at]
    else:
        made[at] = made[at] | {"expected_status": 200}
    return _encode(made)
