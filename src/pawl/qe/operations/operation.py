"""An HTTP operation with the JSON Schema of its body: the task of the API-testing agents."""

from __future__ import annotations

from typing import Any

import msgspec


class Operation(msgspec.Struct, frozen=True, kw_only=True):
    """One task. `source` is what train and evaluation are split by (a service, an API)."""

    id: str  # e.g. "acm.AddTagsToCertificate"
    source: str  # e.g. "acm"
    method: str
    path: str
    schema: dict[str, Any]  # JSON Schema 2020-12, references resolved


class CaseResult(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one generated test case."""

    name: str
    outcome: str  # rejected_as_expected, wrongly_accepted, duplicate, bad_status, malformed
    signature: str = ""  # which rule at which place the payload breaks


class Grade(msgspec.Struct, frozen=True, kw_only=True):
    """An answer's score: the share of its cases that are right and distinct, 0..1."""

    score: float
    valid_json: bool
    cases: tuple[CaseResult, ...] = ()
    problem: str = ""
