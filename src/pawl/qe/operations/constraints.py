"""Changes one constraint of a schema, and the payloads with it, so that each breaks what it broke (pure)."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import Any

from pawl.qe.operations.schema_walk import changed_at, places, replaced

# Bounds as people write them. Lower ones stay small: a payload must reach them.
_BOUNDS: dict[str, tuple[int, ...]] = {
    "minLength": (1, 2, 3, 4, 5, 6, 8),
    "maxLength": (8, 10, 12, 16, 20, 24, 32, 40, 50, 63, 64, 100, 128, 200, 255, 256, 512, 1000, 1024, 2048),
    "minimum": (0, 1, 2, 3, 5, 10, 18, 100),
    "maximum": (5, 10, 20, 25, 50, 60, 90, 100, 120, 365, 500, 1000, 3600, 10000, 65535),
    "minItems": (1, 2, 3),
    "maxItems": (2, 3, 4, 5, 8, 10, 20, 25, 50, 100),
}
_OF_TYPE = {
    "string": ("minLength", "maxLength"),
    "integer": ("minimum", "maximum"),
    "number": ("minimum", "maximum"),
    "array": ("minItems", "maxItems"),
}
_MORE_VALUES = ("OTHER", "CUSTOM", "LEGACY", "AUTOMATIC", "MANUAL", "NONE", "DEFAULT", "PARTIAL", "EXTERNAL", "DRAFT")
_MAX_VALUES = 12  # of an enum, with the new one
# Beside these a bound could leave no value at all.
_SAYS_MORE = ("pattern", "format", "exclusiveMinimum", "exclusiveMaximum", "multipleOf", "uniqueItems")
_DROPS = ("pattern", *_BOUNDS)
_LOOK = 4  # edits looked at for one
Edit = tuple[dict[str, Any], Callable[[Any], Any]]  # the new schema of a place, and what it does to a value there


def edited(schema: dict[str, Any], payloads: list[Any], rng: random.Random) -> tuple[dict[str, Any], list[Any]]:
    """One constraint changed, added or dropped at a place; unchanged where there is nothing to constrain.

    Values that broke a bound break the new one by as much, values that kept it keep the new one. Whether the payloads
    break what they did, other rules of the same place may decide otherwise: ask the validator.
    """
    ways = [_changes, _additions, _drops]
    first = rng.choices(ways, weights=(6, 3, 1))[0]
    for way in (first, *(w for w in ways if w is not first)):
        found = [(place, edit) for place, sub in places(schema) for edit in way(sub, rng)]
        if found:
            break
    else:
        return schema, payloads
    made = []
    for place, (new, fix) in rng.sample(found, min(len(found), _LOOK)):
        made.append((replaced(schema, place, new), [changed_at(p, place, fix) for p in payloads]))
    # An edit that the answer must follow teaches more than one that it need not heed.
    return max(made, key=lambda m: m[1] != payloads)


def _changes(sub: dict[str, Any], rng: random.Random) -> Iterator[Edit]:
    for key in _BOUNDS:
        old = sub.get(key)
        if isinstance(old, int | float) and (choice := _fitting(sub, key)):
            new = rng.choice(choice)
            yield {**sub, key: new}, _moved(key, old, new)
    values = sub.get("enum")
    if isinstance(values, list) and len(values) > 1 and all(isinstance(v, str) for v in values):
        yield from _other_values(sub, values, rng)


def _additions(sub: dict[str, Any], rng: random.Random) -> Iterator[Edit]:
    if "enum" in sub or "const" in sub:
        return
    kind = sub.get("type")
    for key in _OF_TYPE.get(kind, ()) if isinstance(kind, str) else ():
        if key not in sub and (choice := _fitting(sub, key)):
            new = rng.choice(choice)
            yield {**sub, key: new}, _moved(key, None, new)


def _drops(sub: dict[str, Any], rng: random.Random) -> Iterator[Edit]:
    for key in _DROPS:
        if key in sub:
            yield {k: v for k, v in sub.items() if k != key}, _kept


def _other_values(sub: dict[str, Any], values: list[str], rng: random.Random) -> Iterator[Edit]:
    upper = all(v == v.upper() for v in values)
    new = rng.choice([v if upper else v.lower() for v in _MORE_VALUES])
    if new in values:
        return
    at = rng.randrange(len(values))
    old = values[at]
    if len(values) < _MAX_VALUES:
        yield {**sub, "enum": [*values[:at], new, *values[at:]]}, _kept
    yield {**sub, "enum": [*values[:at], new, *values[at + 1 :]]}, lambda v: new if v == old else v
    if len(values) > 2:
        left = [*values[:at], *values[at + 1 :]]
        yield {**sub, "enum": left}, lambda v: left[0] if v == old else v


def _fitting(sub: dict[str, Any], key: str) -> list[int]:
    """Bounds that differ from the old one and leave room to the other side; none where another rule says more."""
    if any(rule in sub for rule in _SAYS_MORE):
        return []
    other = sub.get(key.replace("min", "max") if key.startswith("min") else key.replace("max", "min"))
    choice = [b for b in _BOUNDS[key] if b != sub.get(key)]
    if isinstance(other, int | float):
        choice = [b for b in choice if (b <= other if key.startswith("min") else b >= other)]
    return choice


def _moved(key: str, old: int | float | None, new: int) -> Callable[[Any], Any]:
    low = key.startswith("min")

    def fix(value: Any) -> Any:
        size = _size(key, value)
        if size is None:
            return value
        if old is not None and (size < old if low else size > old):
            return _resized(value, new + (size - old))
        if size < new if low else size > new:
            return _resized(value, new)
        return value

    return fix


def _size(key: str, value: Any) -> int | float | None:
    """What the bound is about in a value; None where the value is of another type."""
    if key in _OF_TYPE["string"]:
        return len(value) if isinstance(value, str) else None
    if key in _OF_TYPE["array"]:
        return len(value) if isinstance(value, list) else None
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None


def _resized(value: Any, size: int | float) -> Any:
    """Cut, or grown by its last part; an empty list holds nothing to repeat and stays."""
    if not isinstance(value, str | list):
        return size
    size = max(int(size), 0)
    more = size - len(value)
    if more <= 0:
        return value[:size]
    if isinstance(value, str):
        return value + (value[-1:] or "a") * more
    return value + value[-1:] * more


def _kept(value: Any) -> Any:
    return value
