"""How often the watch for drift errs over weeks of looks, and how soon it finds what was planted.

    python -m benchmarks.drift [--quick] [--json]

Four weeks of traffic, the first of which is what is compared with; 120 sessions a day; the product's own test after
every session, all eight kinds together. `false_*`: of runs in which nothing changes, the share that alarm at all:
`plain` (independent sessions), `week` (nights and weekends differ), `jobs` (clients' jobs start ten sessions that are
alike, and one of a client and a quarter of an hour is drawn, as the product does), `jobs_all` (the same with all
drawn, which breaks what the test assumes), and with PAWL_DATA_DIR real prompts through the product's whole watch
(fields, lengths, embedding, real grades). `delay_*`: of runs in which something changes after two weeks, hours until
it is told, the median, runs that never tell counted as two weeks; `spread` its quarters. Peers look once a day, at
midnight, which is kind to them: `evidently` alarms where any column drifts by the tests that Evidently picks by
default at its default level, `half` where half of the columns do (its default for a data set), `psi` where any
column's index is over 0.2, and `corrected` divides the level by the 168 tests of a run, so that it may err as rarely
as Pawl. Delays are beside `corrected`, those of real traffic beside 24 hours, the soonest that a look at midnight can
tell. Exit code 1 where the promise of 5 % is broken: the lower bound of a share in `plain`, `week` or real traffic is
above it.
"""

from __future__ import annotations

import os
import random
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from itertools import groupby
from math import sqrt
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from benchmarks.claims import Claim, arguments, tell
from benchmarks.drift_peers import evidently, first_alarm, psi
from benchmarks.drift_worlds import (
    CATEGORICAL,
    DAY,
    MONDAY,
    REFERENCE_DAYS,
    SHIFTS,
    Real,
    Seen,
    World,
    real_sets,
    sessions_of,
    simulated,
)
from pawl.monitoring import drift_watch as watches
from pawl.monitoring.drift_betting import Evidence, part_of_week
from pawl.monitoring.drift_values import FIT, KINDS, surprise
from pawl.qe.task import GenericTask

ALPHA = 0.05
CHANGE = 14
STATIONARY = (World("plain"), World("week", week=True), World("jobs", jobs=10, one=True), World("jobs_all", jobs=10))
PLANTED = tuple(World(f"{name}", week=True, change=CHANGE, shift=name) for name in SHIFTS)
_TESTS = len(KINDS) * (28 - REFERENCE_DAYS)


class Run(NamedTuple):
    """When each rule alarmed first, in days after the first session; None: never."""

    pawl: float | None
    evidently: float | None = None
    half: float | None = None
    psi: float | None = None
    corrected: float | None = None


def drawn(seen: Sequence[Seen]) -> list[Seen]:
    """One session of each quarter of an hour, as `sessions_per_client: 1` has it of one client."""
    return [next(iter(q)) for _, q in groupby(seen, key=lambda s: s.at // 900)]


def pawl(seen: Sequence[Seen], seed: int) -> float | None:
    """The product's test of every kind after every session, with its own learning of what is usual."""
    rng, anchor = random.Random(f"ties {seed}"), MONDAY + REFERENCE_DAYS * DAY
    tests = {k: Evidence() for k in KINDS}
    learnt: dict[str, dict[str, int]] = {k: {} for k in CATEGORICAL}
    for n, s in enumerate(seen):
        for kind, value in s.values.items():
            if kind in learnt:
                if n < FIT:
                    learnt[kind][str(value)] = learnt[kind].get(str(value), 0) + 1
                    continue
                value = surprise(learnt[kind], str(value))
            tests[kind].take(value, part_of_week(s.at), rng.random(), reference=s.at < anchor)
            if tests[kind].peak >= len(KINDS) / ALPHA:
                return (s.at - MONDAY) / DAY
    return None


def play(world: World, seed: int) -> Run:
    """One run of a world: the product and its peers on the same sessions."""
    seen = list(simulated(world, seed))
    return Run(
        pawl(drawn(seen) if world.one else seen, seed),
        first_alarm(seen, evidently),
        first_alarm(seen, evidently, least=len(KINDS) // 2),
        first_alarm(seen, psi),
        first_alarm(seen, evidently, level=ALPHA / _TESTS),
    )


def play_real(real: Real, change: int | None, seed: int) -> Run:
    """One run of real prompts through the product's watch."""
    anchor = MONDAY + REFERENCE_DAYS * DAY
    watch = watches.begin("a", "m", anchor, alpha=ALPHA, reference_s=REFERENCE_DAYS * DAY, quarter_s=900.0)
    found = list(sessions_of(real, seed, days=28, a_day=60, change=change, arm="m"))
    task = GenericTask()
    watches.take(watch, found, task, late=False)
    watches.take(watch, found, task, late=True)
    return Run(min(((at - MONDAY) / DAY for at in watch.found.values()), default=None))


def drawing(real: Real, change: int = 21) -> str:
    """The product's plot of a drift that begins on the day `change`, looked at four times a day."""
    from pawl.monitoring.drift_plot_matplotlib import drawn as picture

    watch = watches.begin(
        "a", "m", MONDAY + REFERENCE_DAYS * DAY, alpha=ALPHA, reference_s=REFERENCE_DAYS * DAY, quarter_s=900.0
    )
    found = list(sessions_of(real, 1, days=28, a_day=60, change=change, arm="m"))
    for quarter in range(4 * 28):
        low, high = (MONDAY + n * DAY / 4 for n in (quarter, quarter + 1))
        now = [s for s in found if low <= s.at < high]
        for late in (False, True):
            watches.take(watch, now, GenericTask(), late=late)
        if high > watch.anchor:
            watches.looked(watch, high)
    return picture(watch)


def main() -> int:
    """Simulate, print the claims; 1 where the promise is broken."""
    parser = arguments("drift", (__doc__ or "").split("\n")[0], __doc__ or "", "few runs, under a minute")
    parser.add_argument("--draw", type=Path, help="only draw a drift planted in real questions into this SVG file")
    args = parser.parse_args()
    if args.draw is not None:
        args.draw.write_text(drawing(_real()[0]))
        return 0
    runs, planted, real_runs = (8, 4, 2) if args.quick else (200, 30, 20)
    began, made, broken = time.monotonic(), [], []
    columns = (TextColumn("{task.description}"), BarColumn(20), MofNCompleteColumn(), TimeElapsedColumn())
    with ProcessPoolExecutor(2) as pool, Progress(*columns, console=Console(stderr=True)) as bars:

        def played(name: str, one: Callable[[int], Run], number: int) -> list[Run]:
            bar, found = bars.add_task(name, total=number), []
            for run in pool.map(one, range(number), chunksize=2):
                found.append(run)
                bars.advance(bar)
            return found

        for world in STATIONARY:
            found = played(world.name, partial(play, world), runs)
            made += _false(world.name, found)
            broken += [] if world.jobs > 1 and not world.one else _over(world.name, found)
        for world in PLANTED:
            made += _delays(world.shift, played(world.shift, partial(play, world), planted))
        for real in _real():
            found = played(real.name, partial(play_real, real, None), real_runs)
            made += _false(real.name, found)
            broken += _over(real.name, found)
            made += _delays(
                real.name,
                played(f"{real.name}, changed", partial(play_real, real, CHANGE), real_runs // 2),
                peers=False,
            )
    tell(made, f"Drift over four weeks, {time.monotonic() - began:.0f} s", as_json=args.json)
    for what in broken:
        print(f"BROKEN: {what}", file=sys.stderr)
    return 1 if broken else 0


def _real() -> list[Real]:
    folder = os.environ.get("PAWL_DATA_DIR")
    if not folder:
        print("PAWL_DATA_DIR names no folder: real traffic is left out", file=sys.stderr)
        return []
    return real_sets(Path(folder))


def _false(name: str, found: Sequence[Run]) -> list[Claim]:
    """The share of runs with any alarm after the reference, against each peer's; against the promise without peers."""
    ours = _alarmed([r.pawl for r in found])
    made = []
    for peer in ("evidently", "half", "psi", "corrected"):
        times = [getattr(r, peer) for r in found]
        if any(r.evidently is not None or r.psi is not None for r in found):
            theirs = _alarmed(times)
            ratio = ours / theirs if theirs else 0.0
            made.append(Claim(f"false_{name}_{peer}", ours, theirs, ratio, _wilson(ours, len(found)), "of runs"))
    return made or [Claim(f"false_{name}", ours, ALPHA, ours / ALPHA, _wilson(ours, len(found)), "of runs")]


def _delays(name: str, found: Sequence[Run], *, peers: bool = True) -> list[Claim]:
    ours = _hours([r.pawl for r in found])
    # Real traffic is played through the product alone: a look at midnight could tell after a day at best.
    theirs = _hours([r.corrected for r in found]) if peers else [24.0]
    middle, peer = statistics.median(ours), statistics.median(theirs)
    quarters = statistics.quantiles(ours, n=4) if len(ours) > 1 else [middle] * 3
    return [Claim(f"delay_{name}", middle, peer, middle / peer, (quarters[0], quarters[2]), "hours")]


def _hours(days: Sequence[float | None]) -> list[float]:
    """After the change; alarms before it are left out, they are false ones."""
    return [((28.0 if d is None else d) - CHANGE) * 24 for d in days if d is None or d >= CHANGE] or [CHANGE * 24.0]


def _over(name: str, found: Sequence[Run]) -> list[str]:
    share = _alarmed([r.pawl for r in found])
    return [f"{name}: {share:.1%} of runs alarmed"] if _wilson(share, len(found))[0] > ALPHA else []


def _alarmed(times: Sequence[float | None]) -> float:
    return sum(t is not None for t in times) / len(times)


def _wilson(share: float, runs: int) -> tuple[float, float]:
    """95 % (Wilson 1927)."""
    z = 1.96
    middle, width = share + z * z / (2 * runs), z * sqrt(share * (1 - share) / runs + (z / (2 * runs)) ** 2)
    return max(0.0, (middle - width) / (1 + z * z / runs)), min(1.0, (middle + width) / (1 + z * z / runs))


if __name__ == "__main__":
    sys.exit(main())
