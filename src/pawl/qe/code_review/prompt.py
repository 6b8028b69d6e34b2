"""How a change stands in a prompt: a unified diff of one file, each line with its number in the new file."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from typing import NamedTuple

from pawl.qe.code_review.faults import WHY
from pawl.qe.item import Messages
from pawl.qe.task import user_text

KINDS = (*WHY, "other")
MOST_DIFF = 1500  # characters
SYSTEM = (
    'Review the diff. Numbers are lines of the new file. Compact JSON: {"findings":[{"line":n,"kind":"'
    + "|".join(KINDS)
    + '","why":"..."}]}; no findings where nothing broke.'
)
_HEAD = re.compile(r"module (?P<module>\S+)\n@@")
_HUNK = re.compile(r"@@ -\d+(?:,\d+)? \+(?P<start>\d+)(?:,\d+)? @@")


class Line(NamedTuple):
    """A line of a diff: its number in the new file (of a removed one: of what follows it), its sign, its text."""

    number: int
    sign: str  # "@" of a hunk's head, " ", "-", "+"
    text: str

    def shown(self) -> str:
        """As the prompt has it."""
        return self.text if self.sign == "@" else f"{self.number} {self.sign}{self.text}"


def diff(before: str, after: str, first: int, context: int = 3) -> list[Line]:
    """The lines that tell two texts apart; `first` is the number of their first line in the file."""
    lines = difflib.unified_diff(before.splitlines(), after.splitlines(), lineterm="", n=context)
    return numbered([line for line in lines if not line.startswith(("---", "+++"))], first - 1)


def numbered(lines: Sequence[str], shift: int = 0) -> list[Line]:
    """The lines of hunks with their numbers in the new file. ValueError where there is something else."""
    found: list[Line] = []
    at: int | None = None
    for line in lines:
        head = _HUNK.match(line)
        if head is not None:
            at = int(head["start"]) + shift
            found.append(Line(at, "@", "@@"))
        elif line.startswith("\\"):  # no newline at end of file
            continue
        elif at is None or line[:1] not in (" ", "+", "-", ""):
            raise ValueError(f"not a line of a unified diff: {line[:60]!r}")
        else:
            sign = line[:1] or " "
            found.append(Line(at, sign, line[1:].rstrip()))
            at += sign != "-"
    if not found:
        raise ValueError("no hunk: a line like `@@ -1,2 +1,3 @@` must begin it")
    return found


def cut(lines: Sequence[Line], most: int = MOST_DIFF) -> list[Line]:
    """Lines whose text is at most that long: unchanged ones away from changes go first, then what stands last."""
    if _length(lines) > most:
        near = {n + d for n, line in enumerate(lines) if line.sign in "+-" for d in (-1, 0, 1)}
        lines = [line for n, line in enumerate(lines) if n in near or line.sign == "@"]
    kept = list(lines)
    while kept and (_length(kept) > most or kept[-1].sign == "@"):
        kept.pop()
    return kept


def _length(lines: Sequence[Line]) -> int:
    return sum(len(line.shown()) + 1 for line in lines)


def messages(module: str, lines: Sequence[Line]) -> Messages:
    """The task as chat messages; `module` loses its spaces."""
    text = f"module {'-'.join(module.split())}\n" + "\n".join(line.shown() for line in lines)
    return [{"role": "system", "content": SYSTEM}, {"role": "user", "content": text}]


def module_of(asked: Messages) -> str | None:
    """The module that a prompt names; None for foreign prompts."""
    found = _HEAD.match(user_text(asked))
    return found["module"] if found else None
