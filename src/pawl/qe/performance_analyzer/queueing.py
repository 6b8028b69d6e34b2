"""A service as a queue: requests arrive at random, wait for one of several workers, and what is measured of it.

First come, first served, Poisson arrivals, exponential service: M/M/c (Kleinrock, Queueing Systems I, 1975, section
3.8) with a deadline after which a waiting request is refused, and with rates that change from one step to the next.
Simulated request by request, so a backlog outlasts what caused it.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import NamedTuple

STEP_S = 10.0
METRICS = ("rps", "latency_ms", "errors_pct", "cpu_pct", "memory_pct")


class Service(NamedTuple):
    """A service in its usual state."""

    rate: float  # requests a second
    workers: int
    service_s: float  # mean time of a request without waiting
    memory: float  # share in use, 0..1


class Step(NamedTuple):
    """What is out of the ordinary in one step of time."""

    load: float = 1.0  # times the usual arrivals
    lost: int = 0  # workers that are gone
    slow: float = 1.0  # times the usual service time
    failing: float = 0.003  # share of requests that fail at once
    leaked: float = 0.0  # share of memory beyond the usual


def simulate(service: Service, steps: Sequence[Step], rng: random.Random) -> dict[str, list[float]]:
    """The measured series of `METRICS`, a value for each step: 95th percentile of latency, shares in per cent."""
    free = [0.0] * service.workers
    deadline = 12 * service.service_s
    out: dict[str, list[float]] = {m: [] for m in METRICS}
    at, last = 0.0, 1000 * service.service_s * 3
    for n, step in enumerate(steps):
        ends = (n + 1) * STEP_S
        memory = min(0.99, service.memory + step.leaked + rng.gauss(0, 0.008))
        # A full memory costs time before it costs requests: collections, swapping.
        mean = service.service_s * step.slow * (1 + 2.5 * max(0.0, memory - 0.7) / 0.3)
        there = range(max(1, service.workers - step.lost))
        rate = service.rate * step.load
        taken: list[float] = []
        arrived = failed = 0
        busy = 0.0
        at = max(at, n * STEP_S)
        while (at := at + rng.expovariate(rate)) < ends:
            arrived += 1
            worker = min(there, key=free.__getitem__)
            starts = max(at, free[worker])
            if starts - at > deadline or rng.random() < step.failing:
                failed += 1
                continue
            takes = rng.expovariate(1 / mean)
            free[worker] = starts + takes
            busy += takes
            taken.append(starts + takes - at)
        taken.sort()
        last = 1000 * taken[int(0.95 * (len(taken) - 1))] if taken else last
        out["rps"].append(arrived / STEP_S)
        out["latency_ms"].append(last)
        out["errors_pct"].append(100 * failed / arrived if arrived else 0.0)
        # Of all workers, those that are gone among them, as a dashboard of the whole service shows it.
        out["cpu_pct"].append(min(100.0, 100 * busy / (service.workers * STEP_S)))
        out["memory_pct"].append(100 * memory)
    return out
