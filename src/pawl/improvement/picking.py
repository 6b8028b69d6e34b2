"""Trains the classifier behind `auto` from the agents' own items and from what was recorded of those without any."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from pathlib import Path

from pawl.errors import ConfigError
from pawl.fleet.spec import AgentSpec, FleetSpec
from pawl.improvement.held_out import split_of
from pawl.improvement.recorded import asked_of
from pawl.lake.parquet_lake import ParquetLake
from pawl.learning import picker_sklearn as picker
from pawl.learning.picker_sklearn import Quality
from pawl.qe.item import Messages
from pawl.qe.task import text_of
from pawl.qe.tasks import task_of

FILE = "auto.npz"  # in PAWL_HOME


def train_picker(
    fleet: FleetSpec, lake: ParquetLake, home: Path, on_progress: Callable[[str], None] = lambda _: None
) -> Quality:
    """Train on sources that agents train on, assess on those they are tested on, and put it into use.

    Raises:
        ConfigError: fleet.yaml has no `auto`.
        NotEnoughData: there is nothing to choose between.
    """
    spec = fleet.auto
    if spec is None:
        raise ConfigError("the fleet", ["it has no `auto`: add `auto: {unsure: AGENT}` to fleet.yaml"])
    learn: dict[str, list[str]] = {}
    held: dict[str, list[str]] = {}
    for agent in fleet.agents:
        if agent.name == spec.unsure:
            continue
        on_progress(agent.name)
        ours = split_of(agent)
        mine = _some([_text(i.messages) for i in ours.train], spec.examples, agent.name)
        mine += _asked(lake, agent, spec.examples - len(mine))
        if len(mine) >= picker.LEAST:
            learn[agent.name] = mine
        tests = [_text(i.messages) for i in ours.test]
        if tests:
            held[agent.name] = _some(tests, spec.examples, agent.name)
    weights = picker.train(learn)
    picker.save(weights, home / FILE)
    return picker.assess(weights, held, spec.min_confidence)


def _asked(lake: ParquetLake, agent: AgentSpec, wanted: int) -> list[str]:
    """What clients asked this agent by name, of sources that may be learnt from, where learning was not denied; what
    the classifier chose itself teaches it nothing."""
    if wanted <= 0:
        return []
    asked = asked_of(lake, agent, task_of(agent.task), "train")
    texts = {_text(i.messages): None for _, _, i in asked if i.picked is None and i.parent is None}
    return _some(list(texts), wanted, agent.name)


def _some(texts: Sequence[str], n: int, seed: str) -> list[str]:
    return random.Random(seed).sample(list(texts), min(n, len(texts)))


def _text(messages: Messages) -> str:
    return "\n".join(text_of(m.get("content")) for m in messages)
