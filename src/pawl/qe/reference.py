"""Reference answers of `functional-negative`, built by explicit mutations and checked by the grader's own validator."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import orjson

from pawl.errors import SourceError
from pawl.qe.functional_negative import ASKED, Undecided, signature

FAULTY = 0.15  # share of answers with a fault, as a cloud model's
_SHORT = 24  # a maximum under which a too long value is still a short text
Schema = dict[str, Any]


def minimal(schema: Schema, depth: int = 0) -> Any:
    """A small value that the schema accepts, as far as that is easy (patterns are not solved)."""
    if "const" in schema:
        return schema["const"]
    if schema.get("enum"):
        return schema["enum"][0]
    kind = schema.get("type", "object" if "properties" in schema else "string")
    kind = kind[0] if isinstance(kind, list) else kind
    if kind == "object":
        fields = schema.get("properties", {})
        return {f: minimal(fields.get(f, {}), depth + 1) for f in schema.get("required", []) if depth < 6}
    if kind == "array":
        return [minimal(schema.get("items", {}), depth + 1) for _ in range(min(schema.get("minItems", 0), 3))]
    if kind in ("integer", "number"):
        return max(1, schema.get("minimum", 1)) if schema.get("maximum", 1) >= 1 else schema["maximum"]
    if kind == "boolean":
        return True
    return None if kind == "null" else "a" * max(1, min(schema.get("minLength", 1), _SHORT))


def mutations(schema: Schema) -> Iterator[tuple[str, Any]]:
    """(name, payload) of payloads that should break the schema, the most telling first."""
    base = minimal(schema)
    if not isinstance(base, dict):
        yield "wrong type", [] if not isinstance(base, list) else "a"
        return
    fields: dict[str, Schema] = schema.get("properties", {})
    required = [f for f in schema.get("required", []) if f in fields]
    for f in required:
        yield f"missing {f}", {k: v for k, v in base.items() if k != f}
    for f, s in fields.items():
        for name, value in _wrong(s):
            yield f"{f} {name}", {**base, f: value}


def _wrong(schema: Schema) -> Iterator[tuple[str, Any]]:
    kind = schema.get("type")
    if schema.get("enum"):
        yield "not in enum", "INVALID"
    if kind == "string":
        yield "wrong type", 1
        if schema.get("minLength", 0) >= 1:
            yield "empty", ""
        if schema.get("maxLength", _SHORT + 1) <= _SHORT:
            yield "too long", "a" * (schema["maxLength"] + 1)
        if "pattern" in schema:
            yield "bad format", "!"
    elif kind in ("integer", "number"):
        yield "wrong type", "a"
        if "minimum" in schema:
            yield "below minimum", schema["minimum"] - 1
        if "maximum" in schema:
            yield "above maximum", schema["maximum"] + 1
    elif kind == "boolean":
        yield "wrong type", "yes"
    elif kind == "array":
        yield "wrong type", "a"
        if schema.get("minItems", 0) >= 1:
            yield "empty", []
    elif kind == "object":
        yield "wrong type", "a"


def cases(schema: Schema, rng: random.Random, n: int = ASKED) -> list[dict[str, Any]]:
    """Up to n test cases, each verified to break the schema in its own way: first what is missing, then types."""
    found: list[tuple[str, Any, str]] = []
    for name, payload in mutations(schema):
        try:
            broken = signature(schema, payload)
        except (Undecided, ValueError):
            continue
        if broken and broken not in {b for _, _, b in found}:
            found.append((name, payload, broken))
    missing = [f for f in found if f[0].startswith("missing ")]
    others = [f for f in found if f not in missing]
    picked = missing[:1] + rng.sample(others, min(n - len(missing[:1]), len(others)))
    picked += [f for f in found if f not in picked][: n - len(picked)]
    picked.sort(key=found.index)
    return [{"name": name, "payload": payload, "expected_status": 400} for name, payload, _ in picked]


def answer(schema: Schema, rng: random.Random, faulty_rate: float = FAULTY) -> str:
    """A reference answer as compact JSON; with that probability it has one of the faults that models make.

    SourceError where the schema allows nothing to be broken in three ways.
    """
    made = cases(schema, rng)
    if len(made) < ASKED:
        raise SourceError(f"only {len(made)} kinds of payload break this schema, {ASKED} are asked for")
    if rng.random() >= faulty_rate:
        return _compact(made)
    fault = rng.choice(("valid payload", "duplicate", "broken JSON", "prose", "wrong status"))
    if fault == "valid payload":
        made[-1] = {**made[-1], "payload": minimal(schema)}
    elif fault == "duplicate":
        made[-1] = {**made[0], "name": made[0]["name"] + " again"}
    elif fault == "wrong status":
        made[0] = {**made[0], "expected_status": 200}
    elif fault == "broken JSON":
        return _compact(made)[: -rng.randint(2, 20)]
    else:
        return f"Here are the test cases:\n```json\n{_compact(made)}\n```"
    return _compact(made)


def corrupt(completion: str, rng: random.Random) -> str:
    """A plausible but wrong answer: all cases the same, and expecting success."""
    try:
        made = orjson.loads(completion)["test_cases"]
        first = dict(made[0])
    except (ValueError, KeyError, IndexError, TypeError):
        first = {"name": "valid", "payload": {}}
    first["expected_status"] = rng.choice((200, 201))
    return _compact([first, first, first])


def _compact(made: list[dict[str, Any]]) -> str:
    return orjson.dumps({"test_cases": made}).decode()
