"""How code or an endpoint stands in a prompt."""

from __future__ import annotations

import re
from typing import Literal, NamedTuple

from pawl.qe.excerpt import excerpt
from pawl.qe.item import Messages
from pawl.qe.task import user_text

Form = Literal["function", "endpoint", "openapi"]
FORMS: tuple[Form, ...] = ("function", "endpoint", "openapi")
MOST_CODE = 1600  # characters; longer code is cut by `excerpt`
SYSTEM = (
    'Security review. Compact JSON: {"vulnerable":true|false,"cwe":"CWE-nnn"|null,'
    '"severity":"none|low|medium|high|critical","fix":"..."}'
)
_HEAD = re.compile(r"project (?P<project>\S+)\n(?P<form>function|endpoint|openapi)\n")
# The words of queries, processes, files, pages, tokens and secrets.
_MATTERS = re.compile(
    r"execute|select |insert |update |delete |where|query|cursor|sql|system|popen|subprocess|shell|command|cmd|ssh|exec"
    r"|eval|open\(|path|file|dir|send_|html|<\w|render|response|escape|markup|write|format|%|\+|request|param|token|jwt"
    r"|secret|password|key|auth|verify|quote|join|sanit|abort|owner|user",
    re.IGNORECASE,
)


class Asked(NamedTuple):
    """What a prompt says."""

    project: str
    form: str
    code: str


def messages(project: str, form: Form, code: str) -> Messages:
    """The task as chat messages; `project` loses its spaces."""
    text = f"project {'-'.join(project.split())}\n{form}\n{shown(code)}"
    return [{"role": "system", "content": SYSTEM}, {"role": "user", "content": text}]


def shown(code: str) -> str:
    """The code as a prompt has it."""
    return excerpt(code, MOST_CODE, _MATTERS)


def parsed(asked: Messages) -> Asked | None:
    """What `messages` was told, with the code as it was cut; None for foreign prompts."""
    text = user_text(asked)
    found = _HEAD.match(text)
    return Asked(found["project"], found["form"], text[found.end() :]) if found else None
