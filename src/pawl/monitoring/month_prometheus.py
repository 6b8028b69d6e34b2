"""What Prometheus counted of a month: requests by outcome, their times, and the minutes in which a gateway was there.

Source: prometheus.io, "HTTP API" (range queries) and "Query functions" (increase, count_over_time).
"""

from __future__ import annotations

import http.client
import json
import math
import urllib.error
import urllib.parse
import urllib.request
from typing import Any

from pawl.errors import PawlError, ServerNotUp
from pawl.monitoring.service_level import Watched

_PATIENCE_S = 60.0
_HOUR_S, _MINUTE_S = 3600, 60
_MOST_POINTS = 10_000  # Prometheus gives at most 11,000 of a series
# A little more than the minute: scrapes a minute apart do not come to the millisecond.
_TOLD = "max(count_over_time(pawl_gateway_start_seconds[61s]))"
_RAN = "max(count_over_time(up[61s]))"
# What was refused at the door is no agent's yet.
_DOOR = 'sum(increase(pawl_refused_total{limit=~"open requests|control database"}[1h]))'
_REQUESTS = 'sum by (agent, outcome) (increase(pawl_requests_total{outcome=~"ok|failed"}[1h]))'
_TIMES = "sum by (le) (increase(pawl_request_seconds_bucket{}[1h]))"
QUERIES = (_TOLD, _RAN, _DOOR, _REQUESTS, _TIMES)

Series = dict[tuple[str, ...], dict[int, float]]  # its labels' values -> epoch seconds -> value


def watched(url: str, since: float, until: float, agent: str = "") -> Watched | None:
    """What the Prometheus at `url` has of the time (epoch seconds; its last hour that is not over is left out).

    `agent`: "" for the fleet. None where the time is shorter than an hour. ServerNotUp where nobody answers, PawlError
    where what answers is no Prometheus, or refuses.
    """
    hours = [int(since) + _HOUR_S * (n + 1) for n in range(int((until - since) // _HOUR_S))]
    if not hours:
        return None
    requests = _asked(url, _REQUESTS, hours, ("agent", "outcome"))
    door = _asked(url, _DOOR, hours, ()).get((), {})
    mine = f'{{agent="{_quoted(agent)}"}}' if agent else "{}"
    buckets = _asked(url, _TIMES.replace("{}", mine), hours, ("le",))
    minutes = list(range(int(since) + _MINUTE_S, hours[-1] + 1, _MINUTE_S))
    told, ran = (set(_asked(url, query, minutes, ()).get((), {})) for query in (_TOLD, _RAN))

    def counted(outcome: str, at: int, of: str) -> float:
        return sum(s.get(at, 0.0) for (a, o), s in requests.items() if o == outcome and of in ("", a))

    answered, due = [], []
    for at in hours:
        ok = counted("ok", at, agent)
        asked, everybody = ok + counted("failed", at, agent), counted("ok", at, "") + counted("failed", at, "")
        # An agent's part of what was refused at the door is its part of what came in.
        mine_of_all = 1.0 if not agent else asked / everybody if everybody else 0.0
        answered.append(ok)
        due.append(asked + mine_of_all * door.get(at, 0.0))
    by_edge = {float(le): s for (le,), s in buckets.items()}
    timed = by_edge.pop(math.inf, {})
    used = {at for at, number in timed.items() if number > 0}
    # A bucket that a newer gateway has, and an older one had not, says nothing of the whole time.
    edges = [e for e in sorted(by_edge) if used <= by_edge[e].keys()]
    return Watched(
        answered=tuple(answered),
        due=tuple(due),
        timed=tuple(timed.get(at, 0.0) for at in hours),
        edges=tuple(edges),
        within=tuple(tuple(min(by_edge[e].get(at, 0.0), timed.get(at, 0.0)) for at in hours) for e in edges),
        minutes=len(minutes),
        told=len(told),
        silent=len(ran - told),
    )


def _asked(url: str, query: str, at: list[int], labels: tuple[str, ...]) -> Series:
    """A query at times that are equally far apart, in as many requests as it takes."""
    step = at[1] - at[0] if len(at) > 1 else _HOUR_S
    found: Series = {}
    for n in range(0, len(at), _MOST_POINTS):
        part = at[n : n + _MOST_POINTS]
        asked = {"query": query, "start": part[0], "end": part[-1], "step": step}
        for series in _call(url, asked)["result"]:
            name = tuple(str(series["metric"].get(label, "")) for label in labels)
            values = ((round(moment), float(value)) for moment, value in series["values"])
            found.setdefault(name, {}).update((moment, value) for moment, value in values if not math.isnan(value))
    return found


def _call(url: str, asked: dict[str, Any]) -> dict[str, Any]:
    body = urllib.parse.urlencode(asked).encode()
    request = urllib.request.Request(f"{url}/api/v1/query_range", body)  # noqa: S310 - the settings' own address
    try:
        with urllib.request.urlopen(request, timeout=_PATIENCE_S) as answer:  # noqa: S310
            said = json.loads(answer.read())
            data: dict[str, Any] = said["data"]
            return data
    except urllib.error.HTTPError as e:
        said = e.read()[:300].decode(errors="replace")
        raise PawlError(f"Prometheus at {url} refused a query ({e.code}): {said}") from e
    except (urllib.error.URLError, OSError, http.client.HTTPException) as e:
        raise ServerNotUp(f"no Prometheus answers at {url} ({e})") from e
    except (ValueError, KeyError, TypeError) as e:
        raise PawlError(f"what answers at {url} is no Prometheus") from e


def _quoted(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"')
