"""What a rollout and a dead replica cost clients of two vLLM replicas: failed requests, and how long things take.

    python -m benchmarks.cluster [--quick] [--json]

Two real replicas (a core each, the built-in 135M model) stand behind a real gateway, and clients ask without a pause
and try nothing again, while an adapter is loaded, traffic shifts to it in stages, the old one is unloaded, and one
replica is killed by kill -9 and started anew. Claims: `failed` (requests without an answer, of all), `ready` (seconds
from the wish for an adapter until every replica answers with it), `back` (seconds from the restarted replica's
first answer to /health until it takes requests again, its adapters loaded before), both beside the 60 s that it gives
up after; and `longest` (the longest answer while one was dead, over the median of all). How much two replicas serve
beside one says nothing on two cores.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path

from rich.console import Console

from benchmarks.claims import Claim, tell
from benchmarks.cluster_scene import Answer, Scene
from benchmarks.servers import Failed
from benchmarks.training import base_dir

CLIENTS = 4


def measure(scene: Scene, pause_s: float, say: object = None, think_s: float = 0.0) -> list[Claim]:
    """Play the whole story; the claims. `think_s`: what clients wait between an answer and the next request. Failed
    where something does not come about."""
    tell = say if callable(say) else lambda text: None
    one, two = scene.adapter("v1", 1), scene.adapter("v2", 2)
    ready = []
    with scene.traffic(CLIENTS, think_s):
        tell("the first adapter")
        scene.place(one)
        ready.append(scene.until(lambda: scene.placed("v1"), 60))
        scene.route(one)
        time.sleep(pause_s)
        tell("the second one, and its stages")
        scene.place(two)
        ready.append(scene.until(lambda: scene.placed("v1", "v2"), 60))
        for percent in (20, 50, 80, 100):
            scene.route(one, two, percent)
            time.sleep(pause_s)
        tell("the first one goes")
        scene.route(two)
        scene.until(lambda: scene.placed("v2"), 60)
        tell("a replica is killed")
        killed = time.monotonic()
        scene.replicas[0].kill()
        time.sleep(pause_s)
        tell("and starts again")
        scene.replicas[0].start()
        scene.replicas[0].wait()
        back = scene.until(lambda: scene.placed("v2"), 60)
        returned = time.monotonic()
        scene.until(lambda: scene.first_after_restart(0).count("/v1/chat/completions") > CLIENTS, 60)
        time.sleep(pause_s)
    return claims(scene.answers, ready, back, (killed, returned))


def claims(answers: list[Answer], ready: list[float], back: float, dead: tuple[float, float]) -> list[Claim]:
    """From the answers and the times (pure)."""
    failed = float(sum(a.status != 200 for a in answers))
    median = statistics.median(a.took_s for a in answers)
    longest = max((a.took_s for a in answers if dead[0] - a.took_s <= a.at <= dead[1]), default=0.0)
    total = float(len(answers))
    return [
        Claim("failed", failed, total, failed / total, (failed, failed), "requests, of all"),
        Claim("ready", statistics.median(ready), 60.0, statistics.median(ready) / 60, (min(ready), max(ready)), "s"),
        Claim("back", back, 60.0, back / 60, (back, back), "s"),
        Claim("longest", longest, median, longest / median, (longest, longest), "s, over the median of all"),
    ]


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="shorter pauses between the steps")
    parser.add_argument("--json", action="store_true", help="one line a claim")
    given = parser.parse_args()
    errors = Console(stderr=True)
    with tempfile.TemporaryDirectory(prefix="pawl-bench-") as folder:
        try:
            with Scene(Path(folder), base_dir()).up() as scene:
                found = measure(scene, 3.0 if given.quick else 15.0, errors.print)
        except Failed as e:
            errors.print(f"failed: {e}", markup=False)
            return 1
    tell(found, "two replicas behind one gateway", as_json=given.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
