"""What clients asked an agent, by the source that the split goes by."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import msgspec

from pawl.curation.dataset import Split
from pawl.curation.permission import refusal
from pawl.curation.pool import source_of
from pawl.fleet.spec import AgentSpec
from pawl.improvement.held_out import side_of
from pawl.lake.parquet_lake import ParquetLake
from pawl.lake.records import Interaction
from pawl.qe.task import Task


def asked_of(lake: ParquetLake, agent: AgentSpec, task: Task, split: Split) -> Iterator[tuple[str, str, Interaction]]:
    """(digest of the prompt, its source, the interaction) of answers whose source is in that split, newest first.

    None that the agent may not learn from.
    """
    side = side_of(agent)
    for i in reversed(lake.interactions(agent.name)):
        if i.role != "answer" or not i.messages or refusal(agent.data, i.privacy, i.consent):
            continue
        digest = _digest(i)
        source = source_of(task, i.messages, str(i.task.get("source", "")), digest)
        if side(source) == split:
            yield digest, source, i


def item_id(digest: str) -> str:
    """What an evaluation calls a recorded prompt."""
    return digest[:16]


def held_ids(lake: ParquetLake, agent: str) -> set[str]:
    """Ids of the prompts of an agent that the lake still holds the text of."""
    return {item_id(_digest(i)) for i in lake.interactions(agent) if i.messages}


def _digest(interaction: Interaction) -> str:
    return hashlib.sha256(msgspec.json.encode(interaction.messages)).hexdigest()
