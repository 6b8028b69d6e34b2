"""Agents with weeks of recorded traffic, a tiny base model to train, and a cluster that answers by the task's truth."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pawl.improvement.held_out import split_of
from pawl.improvement.weeks import Schedule, Stretch, latest
from pawl.improvement.workplace import Workplace
from pawl.lake.journal import Journal
from pawl.lake.records import Feedback, Interaction
from pawl.qe import scaffold
from pawl.qe.task import user_text
from tests.integration.test_judging import Models
from tests.unit.test_peft_trainer import make_base

AGENT, IDLE = "tickets", "idle"
KINDS = ("bug", "feature", "question")

FLEET = """
base_model: {{source: {base}, licence: Apache-2.0}}
upstreams:
  local: {{preset: vllm}}
  cloud: {{kind: cloud, stand_in: true, base_url: "http://127.0.0.1:9/v1", model: stand-in,
          usd_per_million_prompt: 1, usd_per_million_completion: 1}}
agents:
  - &agent
    name: tickets
    task: tickets_task:TicketsTask
    source: {{kind: jsonl, location: {rows}}}
    max_tokens: 32
    data: {{min_examples: 20, max_source_share: 1.0, max_class_share: 1.0, semantic_duplicate: null, languages: [],
           requirements: {{production_examples: 20, retrain_examples: 20, collection_days: 0}}}}
    training: {{rank: 4, alpha: 8, learning_rate: 1.0e-3, batch_size: 4, epochs: {epochs}, max_tokens: 256}}
    evaluation: {{items: 40, margin: 0.05, min_score: 0.2}}
  - <<: *agent
    name: idle
"""


class Tickets(Models):
    """The base model is always wrong; adapters know the kind, which every text names."""

    def answer(self, model: str, messages: list[dict[str, Any]], chance: float) -> str:
        said = next((k for k in KINDS if f"about {k}" in user_text(messages)), "")
        return json.dumps({"kind": said}, separators=(",", ":")) if said and model != "base" else "I cannot."


def write_fleet(folder: Path, *, epochs: float) -> Path:
    """fleet.yaml with its task and data beside it."""
    (folder / "tickets_task.py").write_text(scaffold.files(AGENT)["tickets_task.py"])
    rows = [
        {
            "id": f"t{n}",
            "source": f"s{n // 3}",
            "kind": KINDS[n % 3],
            "text": f"w{n} w{n * 7 % 89} about {KINDS[n % 3]}",
        }
        for n in range(600)
    ]
    (folder / "tickets.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    path = folder / "fleet.yaml"
    base = make_base(folder / "models" / "tiny")
    path.write_text(FLEET.format(base=base, rows=folder / "tickets.jsonl", epochs=epochs))
    return path


def schedule() -> Schedule:
    """Half a week away from now, so that no week ends while a test runs."""
    return Schedule((datetime.now(UTC).weekday() + 3) % 7, 12, 0, "UTC")


def weeks(count: int) -> list[Stretch]:
    """The latest weeks that have ended, oldest first."""
    return latest(schedule(), time.time(), count)


def record(place: Workplace, week: Stretch, name: str, amount: int = 40) -> None:
    """What a cloud answered in that week, and that it was right. Each `name` asks about tickets of its own."""
    items = sorted(split_of(place.agent).train, key=lambda i: (hash_of(name + i.id), i.id))[:amount]
    records: list[Any] = []
    for n, item in enumerate(items):
        at = week.since + (n + 1) * (week.until - week.since) / (amount + 2)
        made = Interaction(
            id=f"{name}{n}", at=at, agent=AGENT, session=f"{name}{n}", key_id="k", arm="stand-in", arm_kind="cloud",
            messages=item.messages, completion=json.dumps({"kind": item.truth}, separators=(",", ":")),
            finish_reason="stop", latency_s=0.1, task={"id": item.id, "source": item.source},
        )  # fmt: skip
        said = Feedback(
            id=f"f{name}{n}", at=at + 1, interaction=made.id, agent=AGENT, kind="outcome", score=1.0, key_id="k"
        )
        records += [made, said]
    journal = Journal(place.settings.journal_dir, name)
    journal.append(records)
    journal.close()


def hash_of(text: str) -> int:
    """The same in every process."""
    import hashlib

    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:6], "big")
