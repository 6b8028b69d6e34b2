"""Traffic whose truth is known, for `benchmarks.drift`: eight numbers a session, by simulation or out of real data."""

from __future__ import annotations

import gzip
import json
import math
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from pawl.monitoring.drift_betting import part_of_week
from pawl.monitoring.drift_values import KINDS, Call, Kind, Session

DAY = 86_400.0
MONDAY = 1_763_337_600.0  # 2025-11-17, 00:00 UTC
REFERENCE_DAYS = 7
CATEGORICAL = ("input_fields", "output_class")


class Seen(NamedTuple):
    """One session's numbers. The categorical kinds are classes, from 0 by how usual they are."""

    at: float
    values: dict[Kind, float]


@dataclass(frozen=True)
class World:
    """How sessions come. Times in days after the first."""

    name: str
    days: int = 28
    a_day: int = 120
    week: bool = False  # nights and weekends are quieter, and ask for other things
    jobs: int = 1  # sessions that one client starts at once, alike
    one: bool = False  # whether one of them is drawn, as the product does
    change: int | None = None  # the day on which `shift` begins
    shift: str = ""


SHIFTS: dict[str, Callable[[dict[Kind, float], random.Random], None]] = {}


def shift(name: str) -> Callable[[Any], Any]:
    """Registers what a change does to a session."""

    def keep(change: Any) -> Any:
        SHIFTS[name] = change
        return change

    return keep


@shift("requests longer by half a standard deviation")
def _longer(v: dict[Kind, float], rng: random.Random) -> None:
    v["input_length"] += 0.3


@shift("one request in five of a new form")
def _fields(v: dict[Kind, float], rng: random.Random) -> None:
    if rng.random() < 0.2:
        v["input_fields"] = 9


@shift("quality from 0.8 to 0.6")
def _quality(v: dict[Kind, float], rng: random.Random) -> None:
    v["quality"] = sum(rng.random() < 0.6 for _ in range(2)) / 2


@shift("feedback from 70 to 40 %")
def _feedback(v: dict[Kind, float], rng: random.Random) -> None:
    v["feedback_rate"] = float(rng.random() < 0.4)


def simulated(world: World, seed: int) -> Iterator[Seen]:
    """The sessions of one run, in order of time."""
    rng = random.Random(seed)
    for day in range(world.days):
        weekend = day % 7 >= 5
        count = int(world.a_day * (0.4 if world.week and weekend else 1.0))
        jobs = sorted(_time(rng, world.week) for _ in range(max(1, count // world.jobs)))
        for begun in jobs:
            like = rng.gauss(0, 0.6) if world.jobs > 1 else 0.0
            for n in range(world.jobs):
                at = MONDAY + (day + begun) * DAY + n
                values = _session(rng, part_of_week(at) if world.week else 1, like)
                if world.change is not None and day >= world.change:
                    SHIFTS[world.shift](values, rng)
                yield Seen(at, values)


def _time(rng: random.Random, week: bool) -> float:
    """Of a day, 0..1; with a week, most of it in working hours."""
    return rng.random() if not week or rng.random() < 0.25 else min(0.999, max(0.0, rng.gauss(0.55, 0.12)))


def _session(rng: random.Random, part: int, like: float) -> dict[Kind, float]:
    night, weekend = part % 4 in (0, 3), part >= 4
    return {
        "input_fields": float(min(4, int(rng.expovariate(1.2)))),
        "input_length": rng.gauss(6.5 + 0.4 * night + like, 0.6),
        "input_embedding": rng.betavariate(4 + weekend, 8) + 0.1 * like,
        "output_length": rng.gauss(5.5 + 0.2 * weekend + like, 0.5),
        "output_form": float(rng.random() < 0.97),
        "output_class": float(min(4, int(rng.expovariate(0.8)))),
        "quality": sum(rng.random() < (0.8 - 0.1 * night) for _ in range(2)) / 2,
        "feedback_rate": float(rng.random() < 0.7),
    }


@dataclass(frozen=True)
class Real:
    """Real prompts with what a real model made of them, in an order of our own: the same mix on every day.

    `later`: the rows from the change on.
    """

    name: str
    rows: tuple[tuple[str, float | None], ...]  # (prompt, score)
    later: tuple[tuple[str, float | None], ...] = ()


def real_sets(folder: Path) -> list[Real]:
    """RouteLLM's prompts with the correctness of Mixtral-8x7B; request bodies of real APIs. Those that are there."""
    found = []
    if (path := folder / "router_routellm.jsonl.gz").exists():
        rows = [(r["prompt"], float(r["weak_correct"])) for r in _rows(path)]
        maths = [(r["prompt"], float(r["weak_correct"])) for r in _rows(path) if "gsm" in r["benchmark"]]
        found.append(Real("questions (MMLU, GSM8K), graded", tuple(rows), tuple(maths)))
    if (path := folder / "openapi_bodies.jsonl.gz").exists():
        by_api: dict[str, list[tuple[str, float | None]]] = {}
        for r in _rows(path):
            text = f"{r['method']} {r['path']} {r['operation_id']}\n{json.dumps(r['schema'])}"
            by_api.setdefault(r["api"], []).append((text, None))
        names = sorted(by_api, key=lambda api: -len(by_api[api]))
        # From the change on, the largest API alone is asked about.
        every = tuple(row for api in names for row in by_api[api])
        found.append(Real("operations of real APIs", every, tuple(by_api[names[0]])))
    return found


def sessions_of(real: Real, seed: int, *, days: int, a_day: int, change: int | None, arm: str) -> Iterator[Session]:
    """One run: a call a session; outcomes are the rows' own, and 70 % are told."""
    rng = random.Random(seed)
    for day in range(days):
        rows = real.later if change is not None and day >= change else real.rows
        for at in sorted(rng.random() for _ in range(a_day)):
            prompt, score = rng.choice(rows)
            told = rng.random() < 0.7
            call = Call(
                arm=arm, ok=True, messages=[{"role": "user", "content": prompt}],
                completion="A" * int(40 + 10 * math.log1p(len(prompt)) * rng.random()),
                told=told, outcome=score if told else None,
            )  # fmt: skip
            yield Session(id=f"{seed}-{day}-{at}", at=MONDAY + (day + at) * DAY, calls=(call,))


def _rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in gzip.open(path)]


assert set(_session(random.Random(0), 0, 0.0)) == set(KINDS)
