"""How often a rollout errs, and how soon it stops: simulated traffic whose truth is known, the product's own decisions.

    python -m benchmarks.rollout [--quick] [--json]

`false`: of rollouts whose challenger is exactly as good, the share in which automation reduced its share of the traffic
or rolled it back, in the worst of six worlds, with a look after every request (every tenth in the longest); the peer
is the promise of 5 %, and the ratio promise over measured (an upper bound of the measured share where none was
reduced). `shadow`: pairs until a challenger that is worse by 10 points (15 % against 5 % of pairs differ) is rolled
back in shadow, the median; `share`: its answers to clients until then at a share of 20 % (75 % against 85 % right);
peers are the promises, 200 and 300. `argo20_*`, `argo100_*`, `flagger20_*`, `flagger100_*`: the shares of rollouts that
their rules stop on the same traffic, with 100 challenger answers at each weight, in five checks of 20 or one of 100
(`rollout_peers`): of challengers as good (`_false`, less is better) and of those worse by 10 points (`_caught`).
`outage`: calls of a challenger whose server dies at a share of 20 %, until it is rolled back, the median, with a look
after every request; the peer is Argo's rule with checks of 20, which counts its failures as answers worth nothing.
`sticky`: sessions of 100,000 that went back to the champion in a rollout that went well; the peer is a random split at
each request.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from itertools import pairwise

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from benchmarks.claims import Claim, tell
from benchmarks.rollout_peers import WEIGHTS, argo, flagger
from benchmarks.rollout_worlds import STAYS, Outcome, World, flips_back, play, traffic
from pawl.fleet.rollout import RolloutSpec

PROMISE = 0.05
PAIRS, ANSWERS = 200, 300
CHECKS = {20: 5, 100: 1}  # answers a check of the peers: checks at each weight
SESSIONS = 100_000
_LONG = RolloutSpec(min_bake_s=0, min_shadow_pairs=100, min_stage_sessions=100, min_watch_sessions=100, stall_hours=1e6)
_WORSE = (0.70, 0.15, 0.05)  # both right, the old one alone, the new one alone
_STAYS = RolloutSpec(min_bake_s=0, min_shadow_pairs=STAYS, min_stage_sessions=STAYS, stall_hours=1e6)
EQUAL = (
    World("85 %, the fleet's minimums", both=0.80, only_old=0.05, only_new=0.05),
    World("60 %, the fleet's minimums", both=0.45, only_old=0.15, only_new=0.15),
    World("60 %, sessions of three", both=0.45, only_old=0.15, only_new=0.15, turns=3),
    World("60 %, half of all calls fail for a while", both=0.45, only_old=0.15, only_new=0.15, failing=(60, 120),
          old_fails=0.5, new_fails=0.5),
    World("60 %, nobody answers for a while", both=0.45, only_old=0.15, only_new=0.15, failing=(60, 90),
          old_fails=1.0, new_fails=1.0),
    World("85 %, a hundred a stage", both=0.75, only_old=0.10, only_new=0.10, spec=_LONG, look_every=10),
)  # fmt: skip
SHADOW = World("worse by 10 points, shadow", *_WORSE, spec=_STAYS, most=3000)
SHARE = World("worse by 10 points, 20 %", *_WORSE, spec=_STAYS, stage="20", look_every=10, most=8000)
DEATH = 200  # the request from which a server is dead
OUTAGE = World("the challenger's server dies, 20 %", both=1.0, only_old=0.0, only_new=0.0, spec=_STAYS, stage="20",
               failing=(DEATH, 10**9), new_fails=1.0, most=3000)  # fmt: skip
BESIDE = (EQUAL[-1], World("worse by 10 points, a hundred a stage", *_WORSE, spec=_LONG, look_every=10))


def main() -> int:
    """Simulate, print the claims; 1 where a promise is broken."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a few of the runs")
    parser.add_argument("--json", action="store_true", help="one claim a line")
    args = parser.parse_args()
    runs = {"false": 60, "stop": 8, "beside": 10} if args.quick else {"false": 1000, "stop": 200, "beside": 200}
    began = time.monotonic()
    columns = (TextColumn("{task.description}"), BarColumn(20), MofNCompleteColumn(), TimeElapsedColumn())
    with ProcessPoolExecutor() as pool, Progress(*columns, console=Console(stderr=True)) as bars:

        def played(world: World, number: int) -> list[Outcome]:
            bar = bars.add_task(world.name, total=number)
            found = []
            for outcome in pool.map(partial(play, world), range(number), chunksize=4):
                found.append(outcome)
                bars.advance(bar)
            return found

        # The long one is the slowest, and its runs are needed beside the peers anyway.
        equal = {w: played(w, runs["beside"] if w.spec is _LONG else runs["false"]) for w in EQUAL}
        made = [_false(equal), _median("shadow", [o.pairs for o in played(SHADOW, runs["stop"])], PAIRS, "pairs")]
        made.append(_median("share", [o.answers for o in played(SHARE, runs["stop"])], ANSWERS, "challenger answers"))
        made.append(_outage(played(OUTAGE, runs["stop"])))
        worse = played(BESIDE[1], runs["beside"])
    made += _beside(equal[BESIDE[0]], worse)
    made.append(_sticky(SESSIONS // 10 if args.quick else SESSIONS))
    tell(made, f"Rollouts by simulation, {time.monotonic() - began:.0f} s", as_json=args.json)
    false, shadow, share = made[:3]
    kept = _number(false.spread) <= PROMISE and _number(shadow.ours) <= PAIRS and _number(share.ours) <= ANSWERS
    kept = kept and made[-1].ours == 0
    if not kept:
        print("BROKEN: a promise of the rollout", file=sys.stderr)
    return 0 if kept else 1


def _false(equal: dict[World, list[Outcome]]) -> Claim:
    """The worst world; `spread` from it to the best, of the measured shares."""
    shares = {w.name: sum(o.reduced for o in found) / len(found) for w, found in equal.items()}
    for world, share in shares.items():
        print(f"equal, {world}: reduced or rolled back {100 * share:.2f} %", file=sys.stderr)
    worst = max(shares.values())
    least = 1 / max(len(found) for found in equal.values())
    return Claim("false", worst, PROMISE, PROMISE / max(worst, least), (min(shares.values()), worst), "of rollouts")


def _median(claim: str, values: Sequence[int], promise: int, unit: str) -> Claim:
    ours = float(statistics.median(values))
    quarters = statistics.quantiles(values, n=4)
    return Claim(claim, ours, float(promise), ours / promise, (quarters[0], quarters[2]), unit)


def _outage(found: list[Outcome]) -> Claim:
    """Failed calls, not answers: the peer's checks that were full of them, less what went well in the first."""
    theirs = []
    for seed in range(len(found)):
        dead = (pair if n < DEATH else (pair[0], 0.0) for n, pair in enumerate(traffic(OUTAGE, seed)))
        stopped = argo(dead, OUTAGE.old, 20, 10**6, seed)
        assert stopped is not None
        theirs.append(stopped - DEATH * WEIGHTS[0] / 100)
    peer = statistics.median(theirs)
    assert all(o.stage == "rolled_back" for o in found), "a dead server was not found"
    return _median("outage", [o.failed for o in found], round(peer), "failed calls")


def _beside(equal: list[Outcome], worse: list[Outcome]) -> list[Claim]:
    made = []
    for name, rule, check in ((n, r, c) for n, r in (("argo", argo), ("flagger", flagger)) for c in CHECKS):
        for what, world, found in (("false", BESIDE[0], equal), ("caught", BESIDE[1], worse)):
            theirs = [
                rule(traffic(world, seed), world.old, check, CHECKS[check], seed) is not None
                for seed in range(len(found))
            ]
            ours, peer = sum(o.reduced for o in found) / len(found), sum(theirs) / len(theirs)
            ratio, spread = ours / peer if peer else 0.0, _binomial(ours, len(found))
            made.append(Claim(f"{name}{check}_{what}", ours, peer, ratio, spread, "of rollouts"))
    return made


def _sticky(sessions: int) -> Claim:
    """A random split at each request sends back whom it moved with the champion's share at each stage."""
    shares = [0.0, *(w / 100 for w in WEIGHTS)]
    random = sessions * sum(p * (1 - q) for p, q in pairwise(shares))
    back = float(flips_back(sessions))
    return Claim("sticky", back, random, back / random, (back, back), f"of {sessions:,} sessions")


def _binomial(share: float, runs: int) -> tuple[float, float]:
    """Two standard errors about it."""
    error = 2 * (share * (1 - share) / runs) ** 0.5
    return max(0.0, share - error), min(1.0, share + error)


def _number(value: object) -> float:
    return float(value[1] if isinstance(value, tuple) else value)  # type: ignore[arg-type]


if __name__ == "__main__":
    sys.exit(main())
