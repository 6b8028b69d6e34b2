"""How a test and its reruns stand in a prompt."""

from __future__ import annotations

import re
from typing import NamedTuple

from pawl.qe.excerpt import excerpt
from pawl.qe.flaky_detection.history import Reruns
from pawl.qe.item import Messages
from pawl.qe.task import user_text

MOST_CODE = 1500  # characters; longer tests are cut by `excerpt`
CAUSES = (
    "async_wait",
    "time",
    "randomness",
    "order_dependence",
    "network",
    "concurrency",
    "floating_point",
)
SYSTEM = (
    'Is the test flaky? Compact JSON: {"verdict":"flaky|stable","cause":"none|unknown|'
    + "|".join(CAUSES)
    + '","confidence":0.0-1.0}'
)
_HEAD = re.compile(r"project (?P<project>\S+)\n(?P<runs>\d{1,9}) sampled reruns, (?P<failed>\d{1,9}) failed\n")
# The words of waiting, clocks, chance, shared state, sockets, threads and floats.
_MATTERS = re.compile(
    r"sleep|wait|timeout|await|async|latch|poll|\bnow\b|time|date|clock|calendar|random|uuid|shuffle|seed|static|global"
    r"|environ|setproperty|singleton|thread|executor|concurren|lock|atomic|future|parallel|socket|http|url|port|server"
    r"|connect|float|double|assert",
    re.IGNORECASE,
)


class Asked(NamedTuple):
    """What a prompt says."""

    project: str
    reruns: Reruns
    code: str


def messages(project: str, reruns: Reruns, code: str) -> Messages:
    """The task as chat messages; `project` loses its spaces."""
    head = f"project {'-'.join(project.split())}\n{reruns.runs} sampled reruns, {reruns.failed} failed\n"
    return [
        {"role": "system", "content": SYSTEM},
        {"role": "user", "content": head + excerpt(code, MOST_CODE, _MATTERS)},
    ]


def parsed(asked: Messages) -> Asked | None:
    """What `messages` was told, with the code as it was cut; None for foreign prompts."""
    text = user_text(asked)
    found = _HEAD.match(text)
    if found is None:
        return None
    return Asked(found["project"], Reruns(int(found["runs"]), int(found["failed"])), text[found.end() :])
