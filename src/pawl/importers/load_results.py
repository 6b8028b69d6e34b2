"""Results of load tests: samples as they come, one observation for each endpoint and minute."""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterator, Sequence
from typing import Any

from pawl.importers.imported import Target, observation
from pawl.lake.records import LakeRecord, Observation

_MINUTE_S = 60.0


class _Minute:
    """Eight bytes a sample: percentiles are exact."""

    __slots__ = ("errors", "millis")

    def __init__(self) -> None:
        self.millis = array("d")
        self.errors = 0


class Minutes:
    """Samples by endpoint and minute; their order does not matter."""

    def __init__(self) -> None:
        self._minutes: dict[tuple[float, str], _Minute] = {}
        self._first, self._last = math.inf, -math.inf

    def take(self, endpoint: str, at: float, millis: float, ok: bool) -> None:
        """One call: when (epoch seconds), how long (milliseconds), whether it went well."""
        minute = self._minutes.setdefault((at // _MINUTE_S * _MINUTE_S, endpoint), _Minute())
        minute.millis.append(millis)
        minute.errors += not ok
        self._first, self._last = min(self._first, at), max(self._last, at)

    def observations(self, target: Target, source: str) -> Iterator[list[LakeRecord]]:
        """One for each minute and endpoint. The rate is over that part of the minute in which the test ran."""
        for (at, endpoint), minute in sorted(self._minutes.items()):
            seconds = max(1.0, min(at + _MINUTE_S, self._last) - max(at, self._first))
            requests, millis = len(minute.millis), sorted(minute.millis)
            figures = {
                "requests": requests,
                "errors": minute.errors,
                "error_share": minute.errors / requests,
                "requests_per_s": requests / seconds,
                **{f"p{percent}_ms": percentile(millis, percent) for percent in (50, 95, 99)},
            }
            yield [load(target, source, at, endpoint, figures)]


def percentile(ordered: Sequence[float], percent: int) -> float:
    """The least value that `percent` of the values do not exceed (nearest rank)."""
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]


def load(
    target: Target,
    source: str,
    at: float,
    component: str,
    figures: dict[str, Any],
    *,
    labels: tuple[str, ...] = (),
    is_dated: bool = True,
) -> Observation:
    """A load result; its title tells the figures in short."""
    rounded = {name: round(v, 4) if isinstance(v, float) else v for name, v in figures.items()}
    said = [f"{rounded['requests']} requests"] if "requests" in rounded else []
    said += [f"p95 {rounded['p95_ms']:.0f} ms"] if "p95_ms" in rounded else []
    said += [f"{rounded['error_share']:.1%} errors"] if "error_share" in rounded else []
    title = f"{component or 'all'}: {', '.join(said)}"
    return observation(
        target, source, at, is_dated=is_dated, kind="load", title=title, component=component, figures=rounded,
        labels=labels,
    )  # fmt: skip
