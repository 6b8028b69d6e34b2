"""What three valid payloads of a schema can cover, and which of it some payloads do (pure).

A goal is something that one of the payloads can show: each counts the same.

    minimal    one payload has none of the optional members
    optional   a member that is not required stands in some payload
    enum       the first, second, third member of an enumeration: as many as there are, and as payloads can have it.
               A member that is always there can take three values in three payloads, another two
    limit      a length, a number or a count of items at its lowest or highest; lengths and counts only as far as they
               are short (LONGEST characters, MOST_ITEMS items), and none beside a rule that could forbid the value
    plausible  no free text (of no pattern, no enumeration, not at a limit) is a placeholder

Whether a payload is realistic no rule can tell; `plausible` only sees what is surely not.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, TypeGuard

import msgspec
import orjson

from pawl.qe.operations.schema_walk import type_of

LONGEST = 24  # characters of a text at its limit; a longer one costs too many tokens
MOST_ITEMS = 3
_DEEPEST = 6  # members within members
_ASKED = 3
KINDS = ("minimal", "optional", "enum", "limit", "plausible")
Place = tuple[str | None, ...]  # names from the outside in, None for the items of a list
_SIZES = {"string": ("minLength", "maxLength", LONGEST), "array": ("minItems", "maxItems", MOST_ITEMS)}
_SAYS_MORE = ("pattern", "format", "multipleOf", "uniqueItems", "enum", "const", "anyOf", "oneOf", "allOf", "not")
_PLACEHOLDERS = frozenset(
    ("string", "text", "value", "test", "foo", "bar", "baz", "example", "sample", "placeholder", "dummy", "lorem ipsum",
     "todo", "tbd", "n/a", "null", "none", "undefined", "abc", "xyz", "asdf", "qwerty", "...")
)  # fmt: skip


class Member(msgspec.Struct, frozen=True):
    """A place of a schema. `always`: it stands in every valid payload, or in every item of its list."""

    place: Place
    schema: dict[str, Any]
    required: bool
    always: bool


class Goal(msgspec.Struct, frozen=True):
    """One thing to show. `want` is a limit's value, or how many members of an enumeration."""

    kind: str
    place: Place = ()
    want: float = 0


def members(schema: Any) -> Iterator[Member]:
    """Every member and item of a schema to a fixed depth, outer ones first; what stands in anyOf and the like not."""
    level: list[tuple[Place, Any, bool]] = [((), schema, True)]
    for _ in range(_DEEPEST):
        inner: list[tuple[Place, Any, bool]] = []
        for place, sub, always in level:
            properties, required = sub.get("properties"), sub.get("required")
            wanted = required if isinstance(required, list) else []
            for name, one in properties.items() if isinstance(properties, dict) else ():
                if isinstance(one, dict):
                    found = Member((*place, name), one, name in wanted, always and name in wanted)
                    yield found
                    inner.append((found.place, one, found.always))
            if isinstance(sub.get("items"), dict):
                found = Member((*place, None), sub["items"], True, always)
                yield found
                inner.append((found.place, sub["items"], always))
        level = inner


def limits(schema: dict[str, Any]) -> list[int | float]:
    """The limits that a payload is asked to reach, the lowest first; each once."""
    if any(rule in schema for rule in _SAYS_MORE):
        return []
    kind = type_of(schema)
    if kind in ("integer", "number"):
        found = [schema.get("minimum"), schema.get("maximum")]
        return list(dict.fromkeys(b for b in found if _number(b)))
    low, high, most = _SIZES.get(kind, ("", "", 0))
    return list(dict.fromkeys(b for key in (low, high) if _number(b := schema.get(key)) and 1 <= b <= most))


def values(schema: dict[str, Any]) -> list[Any]:
    """The members of an enumeration, each once; none where there is no choice."""
    found = schema.get("enum")
    unique = list({orjson.dumps(v): v for v in found}.values()) if isinstance(found, list) else []
    return unique if len(unique) > 1 else []


def goals(schema: Any) -> tuple[Goal, ...]:
    """What three payloads of a schema can cover; nothing where the schema leaves no choice."""
    found: list[Goal] = []
    free = False
    for member in members(schema):
        if not member.required:
            found.append(Goal("optional", member.place))
        several = values(member.schema)
        # Of three payloads one is minimal: what is optional there stands in two.
        found += [Goal("enum", member.place, n + 1) for n in range(min(len(several), _ASKED - (not member.always)))]
        found += [Goal("limit", member.place, at) for at in limits(member.schema)]
        free = free or _free(member.schema)
    if any(g.kind == "optional" for g in found):
        found.insert(0, Goal("minimal"))
    return (*found, Goal("plausible")) if free else tuple(found)


def met(asked: Sequence[Goal], schema: Any, payloads: Sequence[Any]) -> set[Goal]:
    """The goals that the payloads, all of them valid, reach."""
    if not payloads:
        return set()
    by_place = {m.place: m for m in members(schema)}
    optional = [m.place for m in by_place.values() if not m.required]
    reached: set[Goal] = set()
    for goal in asked:
        found = [v for payload in payloads for v in _at(payload, goal.place)]
        if goal.kind == "minimal":
            ok = any(not any(True for place in optional for _ in _at(p, place)) for p in payloads)
        elif goal.kind == "optional":
            ok = bool(found)
        elif goal.kind == "enum":
            ok = len({orjson.dumps(v) for v in found}) >= goal.want
        elif goal.kind == "limit":
            ok = any(_size(v) == goal.want for v in found)
        else:
            ok = not any(
                _placeholder(v, m.schema)
                for m in by_place.values() if _free(m.schema) for p in payloads for v in _at(p, m.place)
            )  # fmt: skip
        if ok:
            reached.add(goal)
    return reached


def _at(value: Any, place: Place) -> Iterator[Any]:
    """What stands at a place of a payload; several things where lists are on the way."""
    if not place:
        yield value
    elif place[0] is None:
        for item in value if isinstance(value, list) else ():
            yield from _at(item, place[1:])
    elif isinstance(value, dict) and place[0] in value:
        yield from _at(value[place[0]], place[1:])


def _size(value: Any) -> int | float | None:
    if isinstance(value, str | list):
        return len(value)
    return value if _number(value) else None


def _number(value: Any) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _free(schema: dict[str, Any]) -> bool:
    return type_of(schema) == "string" and not any(rule in schema for rule in _SAYS_MORE)


def _placeholder(value: Any, schema: dict[str, Any]) -> bool:
    if not isinstance(value, str) or len(value) in limits(schema):
        return False
    return len(set(value)) < 2 or value.strip().lower() in _PLACEHOLDERS
