"""One item of an agent's task, and what an oracle says of an answer to it."""

from __future__ import annotations

from typing import Any

import msgspec

Messages = list[dict[str, Any]]  # a prompt, OpenAI chat form


class Item(msgspec.Struct, frozen=True, kw_only=True):
    """One thing to ask. `source` is what train and evaluation are split by (a service, a project, a module)."""

    id: str
    source: str
    messages: Messages
    truth: Any = None  # what the oracle needs beyond the prompt, JSON types; None where the prompt says it all
    scenario: str = ""  # the task's own class, for slices and balance; "" where it has none


class Grade(msgspec.Struct, frozen=True, kw_only=True):
    """What an oracle says of an answer. All figures are 0..1, better is more."""

    score: float
    conforms: bool  # whether the answer has the form that the agent promises its clients
    problem: str = ""  # in words, what is wrong with it; "" where nothing is
    metrics: dict[str, float] = {}  # the parts of the score by name, e.g. validity, coverage, diversity
    # Of tasks that name one of a few classes: the right one and the one that was given ("" where none was).
    label: str = ""
    said: str = ""
    confidence: float | None = None  # of what was said, where the answer states it


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """One part of an answer that is good or bad by itself, e.g. one test case."""

    entry: Any  # as it stands in the answer, JSON types
    problem: str = ""  # what is wrong with it; "" where it is right


class CannotGrade(Exception):
    """The oracle itself is out of order (no sandbox, no browser): the item is invalid, the model has not failed."""
