"""k6's results: the summary at the end of a run, and the lines of `--out json`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pawl.errors import SourceError
from pawl.importers.imported import Problem, Reject, Rows, Target, moment
from pawl.importers.json_rows import values
from pawl.importers.load_results import Minutes, load
from pawl.lake.records import LakeRecord

_SET = re.compile(r"([^{]+)(?:\{(.*)\})?")
_TREND = {"med": "p50_ms", "p(50)": "p50_ms", "p(95)": "p95_ms", "p(99)": "p99_ms", "avg": "mean_ms", "max": "max_ms"}


def k6(path: Path, target: Target) -> Rows:
    """Lines of `--out json` by endpoint and minute, or a summary (`--summary-export`, `handleSummary`) by metric set.

    A summary does not say when it was: `target.at`, or the file's time. Of lines, HTTP requests are taken.
    """
    minutes, summaries, seen = Minutes(), 0, False
    for line, value in values(path):
        seen = True
        try:
            if isinstance(value, Reject):
                raise Problem(value.reason)
            if isinstance(value, dict) and value.get("type") in ("Metric", "Point"):
                _take(minutes, value)
            elif isinstance(value, dict) and isinstance(value.get("metrics"), dict):
                summaries += 1
                yield from _summary(path, value["metrics"], target)
            else:
                raise Problem("neither a line of k6 nor its summary")
        except Problem as e:
            yield Reject(line or 1, str(e))
    if not seen:
        raise SourceError(f"{path} is empty")
    yield from minutes.observations(target, "k6")


def _take(minutes: Minutes, line: dict[str, Any]) -> None:
    if line["type"] != "Point" or line.get("metric") != "http_req_duration":
        return  # the parts of a request, checks, virtual users
    data = _dict(line.get("data"))
    tags, millis = _dict(data.get("tags")), _number(data.get("value"))
    if millis is None:
        raise Problem("no duration")
    # k6 groups by the tag `name`: the URL, or what the script says instead of URLs with ids in them.
    endpoint = f"{tags.get('method') or ''} {_plain(str(tags.get('name') or tags.get('url') or ''))}".strip()
    minutes.take(endpoint, moment(data.get("time")), millis, _is_ok(tags))


def _is_ok(tags: dict[str, Any]) -> bool:
    """As k6 itself counts failures: by what the script expects, otherwise by the status."""
    if tags.get("expected_response") in ("true", "false"):
        return bool(tags["expected_response"] == "true")
    return str(tags.get("status") or "0").isdecimal() and 200 <= int(tags.get("status") or 0) < 400


def _plain(url: str) -> str:
    """Without query and fragment: each of them would be an endpoint of its own."""
    try:
        return urlsplit(url)._replace(query="", fragment="").geturl()
    except ValueError:
        return url


def _summary(path: Path, metrics: dict[str, Any], target: Target) -> Iterator[list[LakeRecord]]:
    sets: dict[str, dict[str, Any]] = {}
    for name, metric in metrics.items():
        found = _SET.fullmatch(name)
        if found and isinstance(metric, dict):
            sets.setdefault(found.group(2) or "", {})[found.group(1).strip()] = metric
    at = target.at if target.at is not None else path.stat().st_mtime
    taken = 0
    for component, held in sorted(sets.items()):
        figures = _figures(held)
        if "requests" in figures or "p95_ms" in figures or "p50_ms" in figures:
            taken += 1
            labels = tuple(sorted(_missed(held)))
            yield [load(target, "k6", at, component, figures, labels=labels, is_dated=False)]
    if not taken:
        raise Problem("a summary without HTTP requests")


def _figures(held: dict[str, Any]) -> dict[str, Any]:
    figures: dict[str, Any] = {}
    requests, failed = _values(held, "http_reqs"), _values(held, "http_req_failed")
    if (count := _number(requests.get("count"))) is not None:
        figures["requests"] = int(count)
    # Of this rate "passes" counts the failures: it says how often the request did fail.
    errors, fine = _number(failed.get("passes")), _number(failed.get("fails"))
    if errors is not None:
        figures["errors"] = int(errors)
        figures.setdefault("requests", int(errors + (fine or 0)))
    share = _number(failed.get("rate", failed.get("value")))
    for name, value in (("error_share", share), ("requests_per_s", _number(requests.get("rate")))):
        if value is not None:
            figures[name] = value
    duration = _values(held, "http_req_duration")
    for stat, name in _TREND.items():
        if (millis := _number(duration.get(stat))) is not None:
            figures[name] = millis
    return figures


def _missed(held: dict[str, Any]) -> Iterator[str]:
    """Thresholds that were not met. Only `handleSummary` tells them without a doubt."""
    for name, metric in held.items():
        for threshold, told in _dict(metric.get("thresholds")).items():
            if _dict(told).get("ok") is False:
                yield f"missed {name} {threshold}"


def _values(held: dict[str, Any], metric: str) -> dict[str, Any]:
    """`handleSummary` keeps the values one level deeper than `--summary-export`."""
    found = _dict(held.get(metric))
    return _dict(found.get("values")) or found


def _number(value: Any) -> float | None:
    is_one = isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 2**53
    return float(value) if is_one else None


def _dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
