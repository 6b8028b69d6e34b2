"""How the task is put to a model, and read back from a prompt."""

from __future__ import annotations

import re
from typing import Any

from pawl.qe.item import Messages
from pawl.qe.python_code.snippet import Snippet
from pawl.qe.task import user_text

SYSTEM = (
    "Write pytest tests for this Python code: functions named test_..., without parameters, that assert what it "
    "returns or raises for ordinary and edge inputs, so that any small fault in it fails one. "
    "Its names are imported already. Answer with Python code only."
)
_FIRST = re.compile(r"# test (?P<source>\S+)\.(?P<entry>[^\W\d]\w*)(?:: (?P<about>.*))?\n")


def messages(snippet: Snippet) -> Messages:
    """The task as chat messages: one system sentence, then a comment that names the function, and the code."""
    about = " ".join(snippet.about.split())
    first = f"# test {snippet.name}" + (f": {about}" if about else "")
    return [{"role": "system", "content": SYSTEM}, {"role": "user", "content": f"{first}\n{snippet.code}"}]


def parsed(asked: Messages, truth: Any = None) -> Snippet | None:
    """The code that a prompt is about; None where it is not of this task. `truth`: what `truth_of` kept."""
    text = user_text(asked)
    found = _FIRST.match(text)
    code = text[found.end() :] if found else ""
    if found is None or not re.search(rf"^def {found['entry']}\b", code, re.MULTILINE):
        return None
    known = truth if isinstance(truth, dict) else {}
    return Snippet(
        source=found["source"],
        entry=found["entry"],
        code=code,
        seeds=tuple(known.get("seeds", ())),
        assertions=tuple(known.get("assertions", ())),
    )


def truth_of(snippet: Snippet) -> Any:
    """What the prompt does not say: tests and calls that are known; None where there are none."""
    if not snippet.assertions:
        return None
    return {"assertions": list(snippet.assertions), "seeds": list(snippet.seeds)}
