"""How the series of a service stand in a prompt: a table with a line for each point in time, three digits a number."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

from pawl.qe.item import Messages
from pawl.qe.task import user_text

KINDS = ("overload", "capacity_loss", "leak", "error_burst", "noisy_neighbour", "anomaly")
STATUSES = ("ok", "degraded", "incident")
MOST_POINTS = 32
MOST_METRICS = 6
_NOTHING = 1e-200  # what is smaller is shown as 0: its power of ten is no float
SYSTEM = (
    'Performance of a service over time. Compact JSON: {"status":"ok|degraded|incident","issues":[{"metric":"...",'
    '"from":i,"to":i,"kind":"' + "|".join(KINDS) + '"}],"recommendations":["..."]}'
)
_HEAD = re.compile(
    r"service (?P<service>\S+)\n(?P<points>\d{1,4}) points, one each (?P<step>[^\n]{1,40})\ni (?P<names>.+)\n"
)


class Asked(NamedTuple):
    """What a prompt says. `values` holds a row for each point in time, scaled as the prompt's names say."""

    service: str
    metrics: tuple[str, ...]
    values: tuple[tuple[float, ...], ...]

    def column(self, metric: str) -> list[float]:
        """The values of one metric."""
        at = self.metrics.index(metric)
        return [row[at] for row in self.values]


def messages(
    service: str, step: str, series: Mapping[str, Sequence[float]], unscaled: Collection[str] = ()
) -> Messages:
    """The task as chat messages. `step` says how far apart the points are, for people; all series are equally long.

    Values of `unscaled` metrics are rounded to whole numbers, those of others go through `scaled`.
    """
    columns = {}
    for name, values in series.items():
        power, shown = (0, [round(v) for v in values]) if name in unscaled else scaled(values)
        columns[f"{name}*1e{-power}" if power else name] = shown
    table = "\n".join(f"{n} {' '.join(map(str, row))}" for n, row in enumerate(zip(*columns.values(), strict=True)))
    points = len(next(iter(columns.values())))
    head = f"service {'-'.join(service.split())}\n{points} points, one each {step}\ni {' '.join(columns)}\n"
    return [{"role": "system", "content": SYSTEM}, {"role": "user", "content": head + table}]


def scaled(values: Sequence[float]) -> tuple[int, list[int]]:
    """Whole numbers of at most three digits, and the power of ten by which they are larger than the values.

    Values whose greatest lies between 10 and 999 stay as they are, rounded: 0.132 and 0.1 become 132 and 100 (3).
    """
    most = max((abs(v) for v in values), default=0.0)
    power = 0 if most < _NOTHING or 10 <= most < 999.5 else 2 - math.floor(math.log10(most))
    shown = [round(v * 10.0**power) for v in values]
    if any(abs(s) > 999 for s in shown):  # rounded up to four digits
        power -= 1
        shown = [round(v * 10.0**power) for v in values]
    return power, shown


def parsed(asked: Messages) -> Asked | None:
    """What `messages` was told; None for foreign prompts."""
    text = user_text(asked)
    found = _HEAD.match(text)
    if found is None:
        return None
    names = tuple(n.partition("*")[0] for n in found["names"].split(" "))
    rows = [line.split(" ") for line in text[found.end() :].split("\n")]
    if len(rows) != int(found["points"]) or any(len(r) != len(names) + 1 for r in rows):
        return None
    try:
        return Asked(found["service"], names, tuple(tuple(float(v) for v in r[1:]) for r in rows))
    except ValueError:
        return None
