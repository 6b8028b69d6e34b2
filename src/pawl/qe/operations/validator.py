"""Whether a payload keeps the JSON Schema of an operation, and which rules it breaks, in bounded time.

What is undecided (a pattern that backtracks to its bound) is neither kept nor broken.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from itertools import islice
from typing import Any

import jsonschema_rs
import orjson

from pawl.errors import SourceError

_MAX_ERRORS = 6  # of one payload that make its signature
# Real-world patterns can backtrack for ever; at 10,000 steps one costs about 0.2 ms.
_REGEX = jsonschema_rs.FancyRegexOptions(backtrack_limit=10_000, size_limit=4_000_000)
_UNDECIDED = ("BacktrackLimitExceeded", "RegexEngineFailure")


class Undecided(Exception):
    """The validator reached its backtracking bound before it knew."""


def signature(schema: dict[str, Any], payload: Any) -> str:
    """Which rules at which places a payload breaks; empty where it breaks none.

    Raises:
        Undecided: only a bounded pattern said no.
        SourceError: the schema is not usable.
        ValueError: the payload is nested deeper than the validator goes.
    """
    return signature_by(compiled(schema), payload)


@lru_cache(maxsize=16384)
def pattern_compiles(pattern: str) -> bool:
    """Whether the validator's engine takes this pattern."""
    try:
        jsonschema_rs.Draft202012Validator({"pattern": pattern}, pattern_options=_REGEX, offline=True)
    except ValueError:
        return False
    return True


def compiled(schema: dict[str, Any]) -> jsonschema_rs.Draft202012Validator:
    """The validator of a schema; kept for the next answer to the same operation.

    Raises:
        SourceError: not a JSON Schema 2020-12, or one that refers to the outside.
    """
    try:
        key = orjson.dumps(schema)
    except TypeError as error:  # nested deeper than the encoder goes
        raise SourceError(f"not a usable JSON Schema 2020-12: {error}") from error
    return _validator(key)


def signature_by(validator: jsonschema_rs.Draft202012Validator, payload: Any) -> str:
    """The same, by a validator at hand."""
    errors = list(islice(validator.iter_errors(payload), 4 * _MAX_ERRORS))
    decided = [e for e in errors if not _doubtful(e)]
    if errors and not decided:
        raise Undecided
    return ";".join(sorted({_rule(e) for e in decided[:_MAX_ERRORS]}))


def _rule(error: Any) -> str:
    """Keyword and place; for missing and unexpected members also which, since their place is the parent."""
    kind = error.kind
    which = getattr(kind, "property", None) or getattr(kind, "unexpected", None) or ""
    # Any index of an array is the same place: ten wrong items are one idea, not ten.
    place = "/".join("*" if isinstance(p, int) else str(p) for p in error.instance_path)
    return f"{kind.name}@{place}" + (f":{which}" if which else "")


def _doubtful(error: Any) -> bool:
    """Whether an error only says that a bound was reached, here or in every branch of an anyOf."""
    if type(error.kind).__name__.endswith(_UNDECIDED):
        return True
    branches: Iterable[Any] = getattr(error.kind, "context", None) or ()
    return any(any(_doubtful(e) for e in branch) for branch in branches)


@lru_cache(maxsize=2048)
def _validator(schema: bytes) -> jsonschema_rs.Draft202012Validator:
    try:
        return jsonschema_rs.Draft202012Validator(orjson.loads(schema), pattern_options=_REGEX, offline=True)
    except (ValueError, jsonschema_rs.ReferencingError) as error:
        raise SourceError(f"not a usable JSON Schema 2020-12: {str(error)[:200]}") from error
