"""Reference answers: the smallest payload, the fullest, and one with what is left to show, each verified."""

from __future__ import annotations

import random
from functools import lru_cache
from typing import Any

import orjson

from pawl.errors import SourceError
from pawl.qe.functional_positive.oracle import grade
from pawl.qe.functional_positive.payloads import Plan, payload
from pawl.qe.operations.validator import Undecided, compiled, signature

# Tokens of an answer, as `_tokens` guesses them: with this bound SmolLM2's tokenizer counted at most 185 on 1,434
# answers, and a small model has 192. What needs more is no item.
LONGEST = 140
_NAMES = ("smallest", "full", "other values")


def answer(schema: dict[str, Any], rng: random.Random) -> str | None:
    """An answer worth 1 as compact JSON, of at most LONGEST tokens; `rng` varies its values.

    None where none is found: a pattern that is not simple, rules that hang together, too few payloads or too many
    members.

    Raises:
        SourceError: the schema is not usable.
    """
    # Mostly the first words and members of enumerations: regular answers are learnt sooner.
    first = rng.randrange(1, 4) if rng.random() < 0.3 else 0
    for shift in dict.fromkeys((first, 0)):
        if (made := _answer(schema, shift)) is not None:
            return made
    return None


def solvable(schema: dict[str, Any]) -> bool:
    """Whether there is an answer worth 1; never an error."""
    try:
        return _solvable(orjson.dumps(schema))
    except TypeError:  # nested deeper than the encoder goes
        return False


@lru_cache(maxsize=16384)
def _solvable(schema: bytes) -> bool:
    try:
        return _answer(orjson.loads(schema), 0) is not None
    except SourceError:
        return False


def _answer(schema: dict[str, Any], shift: int) -> str | None:
    compiled(schema)  # from here on the rules are of the types that they must be
    made = [payload(schema, Plan(turn, shift)) for turn in (0, 1, 2)]
    if made[2] in made[:2]:
        made[2] = _another(schema, shift, made[:2])
    text = orjson.dumps({"test_cases": [{"name": n, "payload": p} for n, p in zip(_NAMES, made, strict=True)]}).decode()
    return text if _tokens(text) <= LONGEST and grade(schema, text).score == 1.0 else None


def _tokens(text: str) -> float:
    """A guess: four letters are a token; a digit is one of its own, with its neighbours cut apart."""
    digits = sum(c.isdigit() for c in text)
    return (len(text) - digits) / 4 + 1.5 * digits


def _another(schema: dict[str, Any], shift: int, others: list[Any]) -> Any:
    """A third payload where nothing is left to show: one optional member, or other values; the shortest."""
    properties = schema.get("properties")
    names = list(properties) if isinstance(properties, dict) else []
    tried = [payload(schema, Plan(2, shift + more, name)) for more in (0, 1, 2) for name in (None, *names)]
    valid = [p for p in tried if p not in others and _valid(schema, p)]
    return min(valid, key=lambda p: len(orjson.dumps(p)), default=others[0])


def _valid(schema: dict[str, Any], value: Any) -> bool:
    try:
        return not signature(schema, value)
    except (Undecided, ValueError):
        return False
