"""How often the gate errs: evaluations whose truth is known, decided by the product's own functions.

    python -m benchmarks.gate_calibration [--quick] [--json]

Two promises, at 50, 100 and 400 items: equal models are called better in at most 5 % of runs, and a challenger that
is worse by twice the margin is promoted in at most 1 %. Each is measured in every world of `gate_worlds` (binary scores
and thirds, champions that score 0.5 and 0.85, 10 to 60 sources, losses spread out or in clumps). The worst world is
what a claim says, and a promise is kept where that is within three Monte Carlo errors. The peer is the rule that the
gate had before: a two-sided percentile bootstrap over sources, widened by sqrt(k / (k - 1)), whose lower bound must be
above minus the margin.

The runs go through the kernels of `pawl.evaluation.resampling` thousands at a time, and through the product's bounds
and verdict; tests/unit/test_paired.py holds that the decision is that of `compare` and `gate`. What the cheapest of the
bounds denies already is not asked of the others.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from rich.console import Console

from benchmarks.claims import Claim, table
from benchmarks.gate_worlds import Array, World, simulate
from pawl.evaluation import resampling
from pawl.evaluation.clustered import SURELY, UNSEEN, Bounds, bounds_of
from pawl.evaluation.paired import verdict_of
from pawl.evaluation.report import Verdict

SIZES = {50: (10, 20, 40), 100: (10, 30, 60), 400: (10, 30, 60)}
OTHERS = ((16, 5, 0.2), (24, 12, 0.05), (50, 5, 0.1), (100, 10, 0.1), (200, 20, 0.02), (400, 20, 0.1))
RUNS, QUICK_RUNS, PEER_RUNS = 10_000, 1_000, 1_000
AT_ONCE = 500
MARGIN, ALPHA = 0.05, 0.05
GAIN = 0.15
_OPEN = Bounds(-1.0, 1.0, -1.0)


class Decided(NamedTuple):
    """Of each run, the verdict and whether the gate promotes. A verdict that nobody asked for is not worked out, and
    says that there is not enough evidence."""

    verdicts: list[Verdict]
    promoted: list[bool]


class Rates(NamedTuple):
    """Shares of the runs."""

    better: float
    promoted: float


def decided(sums: Array, counts: Array, *, margin: float, alpha: float, everything: bool = False) -> Decided:
    """The product's decision on each run, without floor, slices and suite. Not `everything`: a run that Student's bound
    alone neither calls better nor lets pass is not looked at further."""
    passing = resampling.t_bounds(sums, counts, (alpha,), UNSEEN)[:, 0] > -margin
    asked = np.flatnonzero(passing | everything)
    verdicts: list[Verdict] = ["not_enough_evidence"] * len(sums)
    promoted = [False] * len(sums)
    if len(asked):
        bounds = bounds_of(sums[asked], counts[asked], alpha)
        better, worse = resampling.flip_p(sums[asked])
        for n, b, up, down in zip(asked.tolist(), bounds, better.tolist(), worse.tolist(), strict=True):
            verdicts[n] = verdict_of(b, up, down, margin, alpha)
            promoted[n] = verdicts[n] in ("better", "not_worse") and b.surely > -2 * margin
    return Decided(verdicts, promoted)


def decided_before(sums: Array, counts: Array, *, margin: float, alpha: float) -> Decided:
    """The rule that the gate had before, on the same runs."""
    k = sums.shape[1]
    means = resampling.estimates(sums, counts)
    weights = resampling._draws(k)
    drawn = (sums @ weights) / (counts @ weights)
    low, high = np.quantile(drawn, [alpha / 2, 1 - alpha / 2], axis=1)
    widen = math.sqrt(k / (k - 1))
    low, high = means - (means - low) * widen, means + (high - means) * widen
    better, worse = resampling.flip_p(sums)
    up, down = (better < alpha) & (low > 0), (worse < alpha) & (high < 0)
    passes = up | (~down & (low > -margin))
    return Decided(["better" if u else "not_worse" for u in up], passes.tolist())


def rates(
    world: World, items: int, loss: float, runs: int, seed: int, before: bool = False, margin: float = MARGIN
) -> Rates:
    """What became of so many runs."""
    rng = np.random.default_rng([seed, items, *world.name.encode()])
    better = promoted = 0
    for start in range(0, runs, AT_ONCE):
        made = simulate(world, items, loss, min(AT_ONCE, runs - start), rng).clusters()
        rule = decided_before if before else decided
        found = rule(*made, margin=margin, alpha=ALPHA)
        better += found.verdicts.count("better")
        promoted += sum(found.promoted)
    return Rates(better / runs, promoted / runs)


def worlds(*counts: int) -> list[World]:
    """All kinds of evaluation with so many sources."""
    return [
        World(scores, base, sources, how)
        for sources in counts
        for scores in ("binary", "thirds")
        for base in (0.5, 0.85)
        for how in ("shifts", "breaks")
    ]


def claims(runs: int, peer_runs: int) -> Iterator[tuple[Claim, bool]]:
    """Each claim, and whether what it promises was kept."""
    for items in SIZES:
        kinds = worlds(*SIZES[items])
        equal = [rates(w, items, 0.0, runs, 1) for w in kinds]
        twice = [rates(w, items, 2 * MARGIN, runs, 2) for w in kinds]
        gain = [rates(w, items, -GAIN, peer_runs, 3) for w in kinds if w.base + GAIN < 1 and w.how == "shifts"]
        equal_before = [rates(w, items, 0.0, peer_runs, 1, before=True) for w in kinds]
        twice_before = [rates(w, items, 2 * MARGIN, peer_runs, 2, before=True) for w in kinds]
        gain_before = [
            rates(w, items, -GAIN, peer_runs, 3, before=True) for w in kinds if w.base + GAIN < 1 and w.how == "shifts"
        ]
        for name, ours, peer, promise in (
            ("equal models called better", [r.better for r in equal], [r.better for r in equal_before], ALPHA),
            ("worse by twice the margin, promoted", _promoted(twice), _promoted(twice_before), SURELY),
        ):
            most = promise + 3 * math.sqrt(promise * (1 - promise) / runs)
            yield _claim(f"{items} items: {name}, worst of {len(kinds)} worlds", ours, peer, max), max(ours) <= most
        for name, mine, theirs in (
            ("equal models promoted", _promoted(equal), _promoted(equal_before)),
            (f"better by {GAIN:g}, promoted", _promoted(gain), _promoted(gain_before)),
        ):
            yield _claim(f"{items} items: {name}, mean of {len(mine)} worlds", mine, theirs, _mean), True
    ours, peer = (
        [
            rates(w, items, 2 * margin, amount, 4, before, margin).promoted
            for items, sources, margin in OTHERS
            for w in worlds(sources)
            if 2 * margin < 0.8 * w.base  # no more can be lost than there is
        ]
        for amount, before in ((runs, False), (peer_runs, True))
    )
    most = SURELY + 3 * math.sqrt(SURELY * (1 - SURELY) / runs)
    name = "margins 0.02 to 0.2, 16 to 400 items, 5 to 20 sources: worse by twice the margin, promoted"
    yield _claim(f"{name}, worst of {len(ours)}", ours, peer, max), max(ours) <= most


def _claim(name: str, ours: list[float], peer: list[float], of: object) -> Claim:
    """Shares of runs; the spread is over the worlds."""
    assert callable(of)
    mine, theirs = float(of(ours)), float(of(peer))
    ratio = mine / theirs if theirs else float("nan") if mine else 1.0
    return Claim(name, mine, theirs, ratio, (min(ours), max(ours)), "share of runs")


def _promoted(found: list[Rates]) -> list[float]:
    return [r.promoted for r in found]


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)


def main() -> int:
    """Simulate, print the claims; 1 where a promise is broken."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_RUNS:,} runs of each world instead of {RUNS:,}")
    parser.add_argument("--json", action="store_true", help="one claim a line")
    args = parser.parse_args()
    began, made, kept = time.monotonic(), [], True
    runs, peer_runs = (QUICK_RUNS, 100) if args.quick else (RUNS, PEER_RUNS)
    for claim, good in claims(runs, peer_runs):
        kept &= good
        made.append(claim)
        if args.json:
            print(claim.json(), flush=True)
        elif not good:
            print(f"BROKEN: {claim.claim}", file=sys.stderr)
    if not args.json:
        title = f"The gate's errors, {runs:,} runs of each world (peer {peer_runs:,}), {time.monotonic() - began:.0f} s"
        Console().print(table(made, title))
    return 0 if kept else 1


if __name__ == "__main__":
    sys.exit(main())
