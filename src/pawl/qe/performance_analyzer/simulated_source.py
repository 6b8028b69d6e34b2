"""Simulated services with incidents that are known because they were planted.

The series come from a queue (`queueing`). Planted are a surge of load, a loss of workers, a leak of memory, a burst of
errors, and a neighbour that slows everything down; half of the runs are ok, some of them with a harmless surge or a
single slow step. An issue's status follows from what was measured in its window: an incident where the usual latency
was four times that outside, or one request in ten failed; degraded otherwise.
"""

from __future__ import annotations

import hashlib
import random
import statistics
from functools import lru_cache
from typing import Any

from pawl.qe.item import Item
from pawl.qe.performance_analyzer import oracle, prompt
from pawl.qe.performance_analyzer.queueing import STEP_S, Service, Step, simulate
from pawl.qe.simulated_projects import of_all, project_of

POINTS = 24
_RUNS = 10  # of each service
_SHARES = ("errors_pct", "cpu_pct", "memory_pct")
_LEADING = {
    "overload": "latency_ms",
    "capacity_loss": "latency_ms",
    "leak": "memory_pct",
    "error_burst": "errors_pct",
    "noisy_neighbour": "latency_ms",
}


def items() -> tuple[Item, ...]:
    """All simulated runs, sorted by id; always the same."""
    return of_all(of_service)


@lru_cache(maxsize=128)
def of_service(source: str) -> tuple[Item, ...]:
    """The runs of one service; none where no simulated one is called so."""
    if project_of(source) is None:
        return ()
    rng = random.Random(hashlib.sha256(source.encode()).digest())
    workers, load, mean = rng.randrange(3, 9), rng.uniform(0.4, 0.62), rng.uniform(0.2, 0.9)
    service = Service(workers * load / mean, workers, mean, rng.uniform(0.3, 0.5))
    kinds = [*_LEADING, *rng.choices(("ok", "surge", "blip"), weights=(3, 1, 1), k=_RUNS - len(_LEADING))]
    return tuple(_run(source, n, kind, service, rng) for n, kind in enumerate(kinds))


def _run(source: str, n: int, kind: str, service: Service, rng: random.Random) -> Item:
    while True:
        steps, windows = _planted(kind, service, rng)
        series = simulate(service, steps, rng)
        status = _status(series, windows)
        if status:
            break
    known = oracle.truth(status, windows)
    return Item(
        id=f"{source}/{n:02d}",
        source=source,
        messages=prompt.messages(source, f"{STEP_S:.0f} s", series, _SHARES),
        truth=known,
        scenario=windows[0]["kind"] if windows else "ok",
    )


def _planted(kind: str, service: Service, rng: random.Random) -> tuple[list[Step], list[dict[str, Any]]]:
    steps = [Step(load=rng.uniform(0.94, 1.06)) for _ in range(POINTS)]
    if kind == "surge":
        start = rng.randrange(2, POINTS - 8)
        for n in range(start, start + rng.randrange(4, 8)):
            steps[n] = steps[n]._replace(load=rng.uniform(1.15, 1.25))
    elif kind == "blip":
        steps[rng.randrange(2, POINTS - 2)] = Step(slow=rng.uniform(1.8, 2.4))
    if kind not in _LEADING:
        return steps, []
    length = rng.randrange(9, 16) if kind == "leak" else rng.randrange(4, 12)
    start = rng.randrange(5, POINTS - length + 1)
    changes: dict[str, dict[str, Any]] = {
        "overload": {"load": rng.uniform(1.7, 2.6)},
        "capacity_loss": {"lost": rng.randrange(service.workers // 2, service.workers)},
        "error_burst": {"failing": rng.uniform(0.05, 0.5)},
        "noisy_neighbour": {"slow": rng.uniform(1.7, 2.8)},
    }
    most = rng.uniform(0.95, 1.05) - service.memory
    for n in range(start, start + length):
        grown = {"leaked": most * (n - start + 1) / length} if kind == "leak" else changes[kind]
        steps[n] = steps[n]._replace(**grown)
    return steps, [{"metric": _LEADING[kind], "from": start, "to": start + length - 1, "kind": kind}]


def _status(series: dict[str, list[float]], windows: list[dict[str, Any]]) -> str:
    """What the run is, by what was measured; "" where what was planted cannot be seen, or ok does not look it."""
    inside = {n for w in windows for n in range(w["from"], w["to"] + 1)}
    outside = [n for n in range(POINTS) if n not in inside]
    usual = statistics.median(series["latency_ms"][n] for n in outside)
    if not windows:
        slow = sum(v > 2.5 * usual for v in series["latency_ms"])
        return "ok" if slow <= 2 and max(series["errors_pct"]) < 6 else ""
    times = statistics.median(series["latency_ms"][n] for n in inside) / usual
    errors = statistics.mean(series["errors_pct"][n] for n in inside)
    if times >= 4 or errors >= 10:
        return "incident"
    seen = times >= 1.6 or errors >= 4 or windows[0]["kind"] == "leak"
    return "degraded" if seen else ""
