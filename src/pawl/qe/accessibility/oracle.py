"""The task `accessibility-advocate`: prompt, answer format, and the score (pure).

An agent gets a page's HTML and names the violations on it, each by axe-core's rule id and a CSS selector of the
element. The score is the F1 of the two sets of (rule, element), which is the harmonic mean of precision and recall
(C. J. van Rijsbergen, Information Retrieval, 1979, chapter 7, with beta 1); a page without violations that is said to
have none scores 1.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import msgspec
import orjson

from pawl.qe.item import Messages
from pawl.qe.task import text_of

LONGEST_PAGE = 32 * 1024  # characters
_LONGEST_ANSWER = 64 * 1024
_MOST = 40  # violations of an answer that are looked at; further ones only cost precision
NO_LIST = "no list `violations`"
SYSTEM = (
    "List the accessibility violations of the page (axe-core rule, CSS selector) as compact JSON: "
    '{"violations":[{"rule":"image-alt","target":"img"}]}'
)
_HEAD = re.compile(r"PAGE (?P<id>\S+)")


# A rule, and the number of an element on the page; a selector that names no one element stands for itself.
Named = tuple[str, int | str]


class Page(msgspec.Struct, frozen=True):
    """A page and what it is called: `source/name`."""

    id: str
    html: str

    @property
    def source(self) -> str:
        """The site that it is of."""
        return self.id.partition("/")[0]


class Score(msgspec.Struct, frozen=True):
    """How well what was said agrees with what there is, 0..1."""

    f1: float
    precision: float
    recall: float
    rules: float  # F1 of the rules alone, whatever the elements


def messages(page: Page) -> Messages:
    """The task as chat messages: one system sentence, then a head line and the page."""
    return [{"role": "system", "content": SYSTEM}, {"role": "user", "content": f"PAGE {page.id}\n{page.html}"}]


def page_of(asked: Messages) -> Page | None:
    """The page that a prompt asks about, from its last user message; None where it is not one of this task."""
    text = next((text_of(m.get("content")) for m in reversed(asked) if m.get("role") == "user"), "")
    head, _, html = text.strip().partition("\n")
    match = _HEAD.fullmatch(head.strip())
    if match is None or "<" not in html or len(html) > LONGEST_PAGE:
        return None
    return Page(match["id"], html)


def told(violations: Sequence[tuple[str, str]]) -> str:
    """An answer: compact JSON of (rule, target)."""
    return orjson.dumps({"violations": [{"rule": r, "target": t} for r, t in violations]}).decode()


def said(completion: str) -> tuple[list[tuple[str, str]], int, str]:
    """(rule, target) of an answer, how many it has in all, and what is wrong with its form ("" where nothing is).

    An entry that is none counts, with no rule and no target.
    """
    if len(completion) > _LONGEST_ANSWER:
        return [], 0, f"longer than {_LONGEST_ANSWER} characters"
    try:
        answer = orjson.loads(completion)
    except ValueError as error:  # lone surrogates arrive here too
        return [], 0, f"not JSON: {error}"[:120]
    rows = answer.get("violations") if isinstance(answer, dict) else None
    if not isinstance(rows, list):
        return [], 0, NO_LIST
    found = []
    for row in rows[:_MOST]:
        rule, target = (row.get("rule"), row.get("target")) if isinstance(row, dict) else (None, None)
        found.append((rule, target) if isinstance(rule, str) and isinstance(target, str) else ("", ""))
    return found, len(rows), ""


def response_schema() -> dict[str, Any]:
    """JSON Schema of an answer, for guided decoding."""
    entry = {
        "type": "object",
        "properties": {"rule": {"type": "string", "maxLength": 60}, "target": {"type": "string", "maxLength": 300}},
        "required": ["rule", "target"],
        "additionalProperties": False,
    }
    return {
        "type": "object",
        "properties": {"violations": {"type": "array", "items": entry, "maxItems": _MOST}},
        "required": ["violations"],
        "additionalProperties": False,
    }


def score(truth: set[Named], given: set[Named], unread: int = 0) -> Score:
    """Agreement of what was said with what there is; `unread` further entries were said and are wrong."""
    right = len(truth & given)
    total = len(given) + unread
    if not truth and not total:
        return Score(1.0, 1.0, 1.0, 1.0)
    rules, named = {r for r, _ in truth}, {r for r, _ in given}
    return Score(
        f1=2 * right / (len(truth) + total),
        precision=right / total if total else 0.0,
        recall=right / len(truth) if truth else 0.0,
        rules=2 * len(rules & named) / (len(rules) + len(named)) if rules or named else 0.0,
    )
