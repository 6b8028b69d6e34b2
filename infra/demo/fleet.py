"""`python -m infra.demo.fleet`: several agents learn on one base model, and one vLLM serves their adapters together.

For each agent of the fleet: clients ask through the gateway, the right answers become known later and are posted as
corrections, Prefect runs `improve-agent`, and champion and challenger answer the same items of sources that training
never saw, checked by the agent's oracle. At the end all adapters answer at the same time from one vLLM. Everything that
is done is kept; run it again and it continues.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from infra.demo.chain import chain_by_steps, chain_table, interval

ROOT = Path(__file__).resolve().parents[2]
SHORT = 16  # tokens of the answers that are corrected anyway


def main() -> int:
    """Parse, start, learn, serve, tell."""
    parser = argparse.ArgumentParser(prog="infra.demo.fleet", description=__doc__)
    parser.add_argument("--fleet", type=Path, default=ROOT / "infra" / "demo" / "fleet.yaml", help="its specification")
    parser.add_argument("--agents", nargs="*", help="only these agents of it")
    parser.add_argument("--requests", type=int, default=320, help="of each agent's clients (default 320)")
    parser.add_argument("--out", type=Path, help="also write the figures there, as JSON")
    options = parser.parse_args()
    os.chdir(ROOT)
    os.environ.setdefault("PAWL_HOME", str(ROOT / ".pawl-fleet"))
    os.environ["PAWL_FLEET"] = str(options.fleet)
    for name, value in (("TQDM_DISABLE", "1"), ("MLFLOW_DISABLE_TELEMETRY", "true")):
        os.environ.setdefault(name, value)
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 120)

    from infra.demo.stack import Stack
    from pawl import bootstrap
    from pawl.settings import Settings

    settings = Settings()
    for name in ("vllm", "standin"):
        os.environ[f"PAWL_{name.upper()}_URL"] = getattr(settings, f"{name}_url")
    names = options.agents or [a.name for a in bootstrap.fleet(settings).agents]
    stack = Stack(settings, ROOT, names[0], console)
    try:
        stack.start()
        schooling = Schooling(settings, console)
        rows = [schooling.learn(name, options.requests) for name in names]
        rows = schooling.together(rows)
        chained = chain_by_steps(settings, {r["agent"]: f"together-{r['agent']}" for r in rows}, console)
    finally:
        stack.stop()
    console.print(table(rows))
    if chained:
        console.print(chain_table(chained))
    if options.out:
        options.out.write_text(json.dumps({"agents": rows, "chain": chained}, indent=1))
    return 0


class Schooling:
    """Teaches one agent after the other."""

    def __init__(self, settings: Any, console: Console) -> None:
        from infra.demo.memory import Memory

        self._settings, self._console = settings, console
        self._memory = Memory(settings.home / "fleet.json")

    def learn(self, agent: str, requests: int) -> dict[str, Any]:
        """Traffic, corrections and a weekly run of one agent; its figures before and after."""
        from pawl.improvement.workplace import Workplace

        known = self._memory.get(f"{agent} learnt")
        if known is not None:
            return dict(known)
        place = Workplace(self._settings, agent)
        self._console.rule(agent)
        since = self._memory.once(f"{agent} since", time.time)
        if self._memory.get(f"{agent} asked") is None:
            self._traffic(place, requests)
            self._memory.keep(f"{agent} asked", time.time())
        began = time.time()
        self._improve(agent, since)
        folder = max((p for p in (self._settings.home / "candidates").iterdir() if _is_of(p, agent)), key=_age)
        comparison = json.loads((folder / "comparison.json").read_text())
        gate = json.loads((folder / "gate.json").read_text())
        row = {
            "agent": agent, "candidate": folder.name, "seconds": time.time() - began, "pairs": comparison["pairs"],
            "sources": comparison["sources"], "decision": gate["decision"], "reasons": gate["reasons"],
            **{side: comparison[side]["score"] for side in ("champion", "challenger")},
            "difference": comparison["difference"], "p_better": comparison["p_better"],
            "conforms": [comparison[side]["conforms"] for side in ("champion", "challenger")],
        }  # fmt: skip
        self._console.print(
            f"{agent}: {interval(row['champion'])} -> {interval(row['challenger'])}; {gate['decision']}"
        )
        return dict(self._memory.keep(f"{agent} learnt", row))

    def together(self, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """All adapters from one vLLM, their items mixed; each agent's score then, beside that of its own evaluation."""
        from pawl.evaluation.runner import answer_items
        from pawl.improvement import placing
        from pawl.improvement.asking import frozen_items
        from pawl.improvement.held_out import split_of
        from pawl.improvement.workplace import Workplace
        from pawl.qe.tasks import task_of

        adapters = {
            f"together-{row['agent']}": str(
                (self._settings.home / "candidates" / row["candidate"] / "training" / "adapter").resolve()
            )
            for row in rows
        }
        place = Workplace(self._settings, rows[0]["agent"])
        for name, folder in adapters.items():
            placing.place_adapter(place, name, Path(folder), "the demo's side by side")

        def ask(row: dict[str, Any]) -> dict[str, Any]:
            place = Workplace(self._settings, row["agent"])
            spec, task = place.agent, task_of(place.agent.task)
            items = frozen_items(spec, task, split_of(spec).test)
            results = answer_items(
                items, f"together-{row['agent']}", self._settings.vllm_url, max_tokens=spec.max_tokens,
                model_hash="together", grade=lambda item, text: task.grade(item.messages, text, item.truth),
                concurrency=8,
            )  # fmt: skip
            scores = [r.score for r in results if r.score is not None]
            return row | {"together": sum(scores) / len(scores)}

        with ThreadPoolExecutor(len(rows)) as pool:
            return list(pool.map(ask, rows))

    def _traffic(self, place: Any, requests: int) -> None:
        from infra.demo.people import People
        from infra.demo.screen import Bar
        from infra.demo.traffic_openai import Clients
        from pawl.improvement.held_out import split_of
        from pawl.qe.tasks import task_of

        task = task_of(place.agent.task)
        train = split_of(place.agent).train
        items = random.Random(1).sample(train, min(requests, len(train)))
        key = People(self._settings, place).secret("client")
        clients = Clients(
            self._settings.gateway_url, key, place.agent_name, task, SHORT, 32,
            corrected=lambda item: task.reference(item, random.Random(item.id)),
        )  # fmt: skip
        with Bar(self._console, "clients ask, and the right answers become known", len(items)) as tell:
            work = ((f"{place.agent_name}-{n}", item) for n, item in enumerate(items))
            clients.play(work, lambda p: tell(p.answered + p.failed, f"{p.answered} answered, {p.failed} failed"))

    def _improve(self, agent: str, since: float) -> None:
        from infra.demo import prefect_runs
        from infra.demo.screen import Bar
        from pawl.errors import PawlError
        from pawl.improvement.workplace import Workplace

        place = Workplace(self._settings, agent)
        run = prefect_runs.start_run(
            self._settings, "improve-agent/now", {"agent": agent, "since": since, "until": time.time()}
        )
        with Bar(self._console, f"improve-agent {agent}", 100) as tell:
            failed = prefect_runs.watch(self._settings, run, place.progress, tell)
        if failed:
            raise PawlError(f"improve-agent {failed}")


def table(rows: list[dict[str, Any]]) -> Table:
    """For people."""
    made = Table(title="before and after, by each agent's oracle, on sources that training never saw")
    for name in ("agent", "items", "before", "after", "change", "decision", "side by side"):
        made.add_column(name, justify="left" if name in ("agent", "decision") else "right")
    for r in rows:
        made.add_row(
            r["agent"], str(r["pairs"]), interval(r["champion"]), interval(r["challenger"]),
            interval(r["difference"]), r["decision"], f"{r['together']:.3f}",
        )  # fmt: skip
    return made


def _is_of(folder: Path, agent: str) -> bool:
    path = folder / "comparison.json"
    return path.exists() and json.loads(path.read_text())["agent"] == agent


def _age(folder: Path) -> float:
    return (folder / "comparison.json").stat().st_mtime


if __name__ == "__main__":
    sys.exit(main())
