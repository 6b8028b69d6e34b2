"""The limits of what serves now, looked at whether or not a rollout is open (pure). They alarm; they move nothing.

There is nothing beside it to compare with, so these are the spec's own limits on its latest calls. What clients need
meanwhile is done by breakers and fallbacks; what is to be done about the model a person decides (`pawl restore`).
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable

from pawl.fleet.rollout import RolloutSpec
from pawl.lake.records import Feedback, Interaction
from pawl.rollout.differences import failed, refused
from pawl.rollout.exact import rarely
from pawl.rollout.route import Route

LATEST = 500  # calls that are looked at
FEW = 20  # below so many calls nothing is said
SURELY = 0.001  # how rarely one that keeps its limit alarms at one look


class Latest:
    """The latest calls of one agent's champion and what was said of them."""

    def __init__(self) -> None:
        self._calls: deque[Interaction] = deque(maxlen=LATEST)
        self._scores: dict[str, float] = {}
        self._arm = ""

    def take(self, record: Interaction | Feedback, route: Route) -> None:
        """A record was journalled; another champion begins anew."""
        if route.champion.name != self._arm:
            self._calls.clear()
            self._scores.clear()
            self._arm = route.champion.name
        if isinstance(record, Interaction):
            if record.arm == self._arm and record.role in ("answer", "draft") and not refused(record):
                if len(self._calls) == LATEST:
                    self._scores.pop(self._calls[0].id, None)
                self._calls.append(record)
        elif record.score is not None and record.kind != "correction":
            self._scores[record.interaction] = record.score
            if len(self._scores) > 2 * LATEST:  # feedback on calls that are forgotten
                known = {call.id for call in self._calls}
                self._scores = {i: score for i, score in self._scores.items() if i in known}

    def alarm(self, spec: RolloutSpec, champion: str) -> str:
        """Which limit is broken by the champion of that name, in words; "" where none is."""
        if champion != self._arm:  # it has not been called yet
            return ""
        calls = list(self._calls)
        scores = [self._scores[c.id] for c in calls if c.id in self._scores]
        return _failing(calls, spec) or _slow(calls, spec) or _poor(scores, spec)


def _failing(calls: list[Interaction], spec: RolloutSpec) -> str:
    errors = sum(map(failed, calls))
    if len(calls) < FEW or rarely(errors, len(calls), spec.max_error_rate) >= SURELY:
        return ""
    return f"{errors} of its latest {len(calls)} calls failed, {spec.max_error_rate:.0%} may"


def _slow(calls: list[Interaction], spec: RolloutSpec) -> str:
    good = [c for c in calls if not failed(c)]
    tokens = [c.first_token_s for c in good if c.first_token_s is not None]
    for what, values, limit in (
        ("latency", [c.latency_s for c in good], spec.max_p95_latency_s),
        ("time to the first token", tokens, spec.max_p95_first_token_s),
    ):
        if limit is not None and _more_than_a_twentieth(values, limit):
            return f"more than one in twenty of its latest {len(values)} calls is over {limit:g} s of {what}"
    return ""


def _more_than_a_twentieth(values: Iterable[float], limit: float) -> bool:
    """Whether the 95th percentile is surely over the limit."""
    found = list(values)
    return len(found) >= FEW and rarely(sum(v > limit for v in found), len(found), 0.05) < SURELY


def _poor(scores: list[float], spec: RolloutSpec) -> str:
    """By Hoeffding's inequality (JASA 58, 1963, theorem 1), since scores need not be 0 or 1."""
    if spec.min_quality is None or len(scores) < FEW:
        return ""
    mean = sum(scores) / len(scores)
    if mean + math.sqrt(math.log(1 / SURELY) / (2 * len(scores))) >= spec.min_quality:
        return ""
    return f"the mean of its latest {len(scores)} scores is {mean:.3f}, the floor is {spec.min_quality:g}"
