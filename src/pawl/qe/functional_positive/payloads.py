"""Payloads that a schema accepts, as far as that is easy to find: required members, all, values at their limits."""

from __future__ import annotations

import re
from typing import Any

import msgspec

from pawl.qe.functional_positive.coverage import goals, limits, values
from pawl.qe.operations.pattern_text import example
from pawl.qe.operations.schema_walk import type_of
from pawl.qe.operations.validator import compiled

# What people write there, by the last words of the member's name; short, since every character costs.
_PEOPLE = ("ann", "bo", "cleo")
_MAILS = tuple(f"{who}@example.com" for who in _PEOPLE)
_PLACES = ("https://example.com/a", "https://example.org/b", "https://example.net/c")
_IDS = ("a7f3", "c204", "d81b")
_TIMES = ("2025-03-14T09:30:00Z", "2024-11-05T18:00:00Z", "2025-06-01T00:00:00Z")
_TEXTS = {
    "email": _MAILS, "mail": _MAILS, "url": _PLACES, "uri": _PLACES, "time": _TIMES, "at": _TIMES, "id": _IDS,
    "ids": _IDS, "identifier": _IDS, "user": _PEOPLE, "username": _PEOPLE, "owner": _PEOPLE,
    "date": ("2025-03-14", "2024-11-05", "2025-06-01"), "token": ("t0k9x", "q4zr2", "m5wd8"),
    "arn": tuple(f"arn:aws:iam::123456789012:role/{who}" for who in ("ops", "ci", "audit")),
    "phone": ("+44 20 7946 0018", "+1 202 555 0143", "+1 202 555 0178"), "version": ("1.4", "2.0", "1.5"),
    "region": ("eu-west-1", "us-east-2", "eu-north-1"), "path": ("/data/in", "/data/out", "/data/old"),
    "description": ("nightly run", "first draft", "for review"), "message": ("all done", "please check", "try again"),
    "city": ("Leeds", "Porto", "Graz"), "country": ("GB", "PT", "AT"), "currency": ("EUR", "GBP", "SEK"),
    "language": ("en", "pt", "de"), "address": ("12 Mill Lane", "4 Rua Nova", "9 Hauptplatz"),
    "ip": ("192.0.2.10", "198.51.100.7", "203.0.113.5"), "key": ("team", "stage", "owner"),
}  # fmt: skip
_WORDS = ("orders", "billing", "reports", "search")
_NUMBERS = (2, 5, 10, 20, 50, 100, 250, 1000)
_KEYS = ("team", "stage", "owner")
# What a schema may ask for and no short payload has: it is not even tried.
_MOST_ITEMS, _LONGEST_TEXT = 50, 10_000
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+")


class Plan(msgspec.Struct, frozen=True):
    """Which of the payloads is made. `turn` 0 has the required members alone, 1 has all, 2 those with more to show.

    `shift` moves the choice of words and of members of enumerations; `also` is an optional member that turn 2 takes.
    """

    turn: int
    shift: int = 0
    also: str | None = None


def payload(schema: dict[str, Any], plan: Plan) -> Any:
    """A value of the schema after the plan; not verified."""
    return _value(schema, "", plan, True)


def _value(schema: dict[str, Any], name: str, plan: Plan, always: bool) -> Any:
    # What is optional appears a turn later, with the first of what it has to show.
    turn = plan.turn if always else max(plan.turn - 1, 0)
    if "const" in schema:
        return schema["const"]
    if several := schema.get("enum"):
        return several[(turn + plan.shift) % len(several)]
    for keyword in ("oneOf", "anyOf", "allOf"):
        if schema.get(keyword) and "type" not in schema and isinstance(schema[keyword][0], dict):
            return _value(schema[keyword][0], name, plan, always)
    kind = type_of(schema)
    if kind == "object":
        return _object(schema, name, plan, always)
    ends = limits(schema)
    end = ends[turn] if turn < len(ends) else None
    if kind == "array":
        return _array(schema, name, plan, always, end)
    if kind == "boolean":
        return (turn + plan.shift) % 2 == 0
    if kind in ("integer", "number"):
        return _number(schema, turn + plan.shift) if end is None else end
    return _text(schema, name, turn + plan.shift, end)


def _object(schema: dict[str, Any], name: str, plan: Plan, always: bool) -> dict[str, Any]:
    properties = schema.get("properties")
    properties = properties if isinstance(properties, dict) else {}
    required = schema.get("required", ())
    made: dict[str, Any] = {}
    for key, sub in properties.items():
        sub = sub if isinstance(sub, dict) else {}
        wanted = key in required
        if wanted or plan.turn == 1 or (plan.turn == 2 and (key == plan.also or _shows_more(sub))):
            made[key] = _value(sub, key, plan, always and wanted)
    for key in required:
        if key not in made:
            made[key] = _value({}, key, plan, always)
    others = schema.get("additionalProperties")
    if not properties and isinstance(others, dict) and others:
        least = int(schema.get("minProperties", 0))
        for key in _KEYS[: max(least, plan.turn > 0)]:
            made[key] = _value(others, key, plan, always)
    return made


def _shows_more(schema: dict[str, Any]) -> bool:
    """Whether an optional member has more to show than fits into one payload."""
    if len(limits(schema)) > 1 or len(values(schema)) > 1:
        return True
    seen: dict[Any, int] = {}
    for goal in goals(schema):
        if goal.kind in ("enum", "limit"):
            seen[goal.place] = seen.get(goal.place, 0) + 1
    return any(n > 1 for n in seen.values())


def _array(schema: dict[str, Any], name: str, plan: Plan, always: bool, end: float | None) -> list[Any]:
    items = schema.get("items")
    items = items if isinstance(items, dict) else {}
    count = int(schema.get("minItems", 0)) if end is None else int(end)
    most = schema.get("maxItems", count + 1)
    one = name[:-1] if name.endswith("s") and not name.endswith("ss") else name
    made = []
    for n in range(min(_MOST_ITEMS, max(count, min(1, most)))):
        at = msgspec.structs.replace(plan, shift=plan.shift + n)
        made.append(_value(items, one, at, always))
    return made


def _number(schema: dict[str, Any], nth: int) -> int | float:
    low, high = schema.get("minimum"), schema.get("maximum")
    above, below = schema.get("exclusiveMinimum"), schema.get("exclusiveMaximum")
    step = schema.get("multipleOf")
    choice = [
        n
        for n in (*_NUMBERS, 1, 0, step)
        if n is not None
        and (low is None or n >= low)
        and (high is None or n <= high)
        and (above is None or n > above)
        and (below is None or n < below)
        and (not step or n % step == 0)
    ]
    if choice:
        return choice[nth % min(len(choice), 4)]
    return next((b for b in (low, high) if b is not None), 1 if above is None else above + 1)


def _text(schema: dict[str, Any], name: str, nth: int, end: float | None) -> str:
    least = min(_LONGEST_TEXT, int(schema.get("minLength", 0)) if end is None else int(end))
    most = int(schema.get("maxLength", 1 << 30)) if end is None else int(end)
    several = _texts(name)
    words = [several[(nth + i) % len(several)] for i in range(len(several))] + [_WORDS[nth % len(_WORDS)]]
    pattern = schema.get("pattern")
    if pattern is None:
        fitting = next((w for w in words if least <= len(w) <= most), None)
        return fitting if fitting is not None else _stretched(words[0], least, most)
    matches = compiled({"pattern": pattern}).is_valid
    tried = [w.replace(" ", "-") for w in words]
    tried += [_stretched(w, least, most) for w in tried]
    tried += [t for more in (3, 0, 1, 8, least - 1, least) if (t := example(pattern, max(more, 0), nth)) is not None]
    return next((t for t in tried if least <= len(t) <= most and matches(t)), tried[-1])


def _texts(name: str) -> tuple[str, ...]:
    parts = _WORD.findall(name)
    return _TEXTS.get(parts[-1].lower(), _WORDS) if parts else _WORDS


def _stretched(word: str, least: int, most: int) -> str:
    """The word with a number behind it, or its beginning, to the length that is asked for."""
    return (word + "-" + "0123456789" * (least // 10 + 1))[: max(least, 0)] if len(word) < least else word[:most]
