"""Series of one's own with labelled windows.

A row is a reading: `series`, `timestamp`, `value`, `anomaly` (1 within a labelled window, else 0). Optional: `metric`,
where a series has several (all read at the same times); `kind`, one of the task's; `status`, degraded or incident.
Rows stand in the order of time within a series and metric.
"""

from __future__ import annotations

import statistics
from collections import Counter
from typing import Any, NamedTuple

from pawl.errors import SourceError
from pawl.qe import rows_jsonl
from pawl.qe.item import Item
from pawl.qe.performance_analyzer import oracle, prompt
from pawl.qe.rows_jsonl import Row

_WIDE = 24  # points of an item with more than two columns; of others MOST_POINTS
_SHARE = 10  # a labelled window of the usual length is about so many points long


class _Reading(NamedTuple):
    values: tuple[float, ...]
    anomaly: bool
    kind: str
    status: str


def items(location: str) -> list[Item]:
    """Windows of 24 or 32 points of every series, each beginning half a window after the one before, sorted by id.

    Where labelled windows are long, several readings make one point: a tenth of the median labelled window of the
    whole file, at least one. A point then shows the mean and the reading farthest from the item's median, and is
    labelled where half of its readings are.

    Raises:
        SourceError: a row lacks something, by line; or no series is long enough.
    """
    series, metrics = _read(location)
    together = _together(series)
    columns = len(metrics) * (2 if together > 1 else 1)
    points = prompt.MOST_POINTS if columns <= 2 else _WIDE
    if columns > prompt.MOST_METRICS:
        raise SourceError(f"{location}: {columns} columns are too many for a prompt, at most {prompt.MOST_METRICS}")
    found = []
    for name, readings in series.items():
        bins = [readings[n : n + together] for n in range(0, len(readings) - together + 1, together)]
        for start in range(0, len(bins) - points + 1, points // 2):
            item = _item(name, f"{name}/{start:05d}", bins[start : start + points], metrics, together)
            found.append(item)
    if not found:
        raise SourceError(f"{location}: no series has {points} points of {together} reading(s) each")
    return sorted(found, key=lambda i: i.id)


def _read(location: str) -> tuple[dict[str, list[_Reading]], tuple[str, ...]]:
    """Readings by series, and the metrics' names, which all series share."""
    rows: dict[str, dict[str, list[Row]]] = {}
    for row in rows_jsonl.read(location):
        name = "-".join(row.text("series").split())
        metric = "-".join((row.optional("metric") or "value").split())
        rows.setdefault(name, {}).setdefault(metric, []).append(row)
    metrics = tuple(next(iter(rows.values())))
    made = {}
    for name, by_metric in rows.items():
        first = next(iter(by_metric.values()))
        if set(by_metric) != set(metrics) or len({len(v) for v in by_metric.values()}) > 1:
            raise first[0].wrong(f"series {name} needs each of {', '.join(metrics)} at all of its times")
        columns = [by_metric[m] for m in metrics]
        made[name] = [_reading(at) for at in zip(*columns, strict=True)]
    return made, metrics


def _reading(at: tuple[Row, ...]) -> _Reading:
    labels = [row.whole("anomaly") for row in at]
    kinds, statuses = ({row.optional(f) for row in at} - {""} for f in ("kind", "status"))
    for row, label in zip(at, labels, strict=True):
        if label not in (0, 1):
            raise row.wrong("field `anomaly` must be 0 or 1")
    if kinds - set(prompt.KINDS) or len(kinds) > 1:
        raise at[0].wrong(f"field `kind` must be one of {', '.join(prompt.KINDS)}")
    if statuses - set(prompt.STATUSES[1:]) or len(statuses) > 1:
        raise at[0].wrong("field `status` must be degraded or incident")
    values = tuple(row.number("value") for row in at)
    return _Reading(values, any(labels), "".join(kinds), "".join(statuses))


def _together(series: dict[str, list[_Reading]]) -> int:
    lengths = [len(w) for readings in series.values() for w in _windows([r.anomaly for r in readings])]
    return max(1, round(statistics.median(lengths) / _SHARE)) if lengths else 1


def _windows(labels: list[bool]) -> list[range]:
    edges = [n for n in range(len(labels) + 1) if (n < len(labels) and labels[n]) != (n > 0 and labels[n - 1])]
    return [range(a, b) for a, b in zip(edges[::2], edges[1::2], strict=True)]


def _item(source: str, name: str, bins: list[list[_Reading]], metrics: tuple[str, ...], together: int) -> Item:
    columns: dict[str, list[float]] = {}
    for n, metric in enumerate(metrics):
        values = [[r.values[n] for r in b] for b in bins]
        if together == 1:
            columns[metric] = [v for (v,) in values]
            continue
        middle = statistics.median(v for b in values for v in b)
        columns[f"{metric}_mean"] = [statistics.fmean(b) for b in values]
        columns[f"{metric}_peak"] = [max(b, key=lambda v, m=middle: abs(v - m)) for b in values]  # type: ignore[misc]
    issues: list[dict[str, Any]] = []
    for w in _windows([2 * sum(r.anomaly for r in b) >= len(b) for b in bins]):
        kind = _usual([r.kind for n in w for r in bins[n] if r.anomaly])
        issues.append({"metric": "", "from": w.start, "to": w.stop - 1, "kind": kind})
    statuses = {r.status for b in bins for r in b if r.anomaly and r.status}
    worst = next((s for s in reversed(prompt.STATUSES) if s in statuses), "")
    known = oracle.truth(worst if issues else "ok", issues)
    step = f"{together} readings" if together > 1 else "reading"
    return Item(
        id=name,
        source=source,
        messages=prompt.messages(source, step, columns),
        truth=known,
        scenario=(issues[0]["kind"] or "anomaly") if issues else "ok",
    )


def _usual(kinds: list[str]) -> str:
    return Counter(kinds).most_common(1)[0][0] if kinds else ""
