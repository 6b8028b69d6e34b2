"""How the task is put to a model, and read back from a prompt."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from pawl.qe.item import Messages
from pawl.qe.python_code.snippet import Snippet
from pawl.qe.task import user_text

SYSTEM = (
    "Find what the tests of this Python code leave out. Answer with compact JSON: "
    '{"lines":[...],"branches":["LINE:true",...],"calls":["f(...)",...]}. lines: numbers of statements that never run. '
    "branches: outcomes that were never taken of each if, while, for, conditional expression; a for is true where its "
    "body runs and false where it ends without break. calls: up to 8 calls of the function that reach all of these."
)
_FIRST = re.compile(r"# cover (?P<source>\S+)\.(?P<entry>[^\W\d]\w*)(?:: [^\n]*)?\n")
_TESTS, _REPORT = "\n# tests\n", "\n# lines that ran: "
_NUMBERED = re.compile(r" *\d+\| ?")


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """A prompt of this task: the code, and the tests that it has."""

    snippet: Snippet
    tests: tuple[str, ...]


def messages(asked: Asked, ran: Iterable[int]) -> Messages:
    """The task as chat messages: the numbered code, its tests, and which of its lines ran."""
    snippet = asked.snippet
    about = " ".join(snippet.about.split())
    first = f"# cover {snippet.name}" + (f": {about}" if about else "")
    lines = snippet.code.rstrip("\n").split("\n")
    code = "\n".join(f"{n:2}| {line}".rstrip() for n, line in enumerate(lines, start=1))
    text = f"{first}\n{code}\n{_TESTS}" + "\n".join(asked.tests) + f"\n{_REPORT}{spans(ran)}"
    return [{"role": "system", "content": SYSTEM}, {"role": "user", "content": text}]


def parsed(given: Messages, truth: Any = None) -> Asked | None:
    """What a prompt asks; None where it is not of this task. `truth`: what `truth_of` kept."""
    text = user_text(given)
    found = _FIRST.match(text)
    if found is None or _TESTS not in text or _REPORT not in text:
        return None
    body, _, rest = text[found.end() :].partition(_TESTS)
    tests, _, _ = rest.rpartition(_REPORT)
    lines = body.rstrip("\n").split("\n")
    if not all(_NUMBERED.match(line) for line in lines):
        return None
    code = "\n".join(_NUMBERED.sub("", line, count=1) for line in lines) + "\n"
    known = truth if isinstance(truth, dict) else {}
    snippet = Snippet(
        source=found["source"],
        entry=found["entry"],
        code=code,
        seeds=tuple(known.get("seeds", ())),
        assertions=tuple(known.get("assertions", ())),
    )
    return Asked(snippet=snippet, tests=tuple(t for t in tests.strip("\n").split("\n") if t))


def truth_of(snippet: Snippet) -> Any:
    """What the prompt does not say: tests and calls that are known; None where there are none."""
    if not snippet.assertions:
        return None
    return {"assertions": list(snippet.assertions), "seeds": list(snippet.seeds)}


def spans(numbers: Iterable[int]) -> str:
    """Numbers as people write them: `2-4, 7`."""
    found: list[list[int]] = []
    for n in sorted(set(numbers)):
        if found and n == found[-1][-1] + 1:
            found[-1].append(n)
        else:
            found.append([n])
    return ", ".join(f"{f[0]}-{f[-1]}" if len(f) > 1 else str(f[0]) for f in found) or "none"


def one_line(tests: Sequence[str]) -> bool:
    """Whether each of the tests stands on a line of its own."""
    return all("\n" not in t and "\r" not in t for t in tests)
