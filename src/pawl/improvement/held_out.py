"""What an agent never learns from: the tasks of validation and test sources, and its regression suite."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from pawl.curation.dataset import Split
from pawl.curation.pool import HeldOut
from pawl.curation.regression import Suite
from pawl.curation.split import side, split_sources
from pawl.fleet.spec import AgentSpec
from pawl.qe.functional_negative import oracle as functional_negative
from pawl.qe.operations import sources
from pawl.qe.operations.operation import Operation
from pawl.qe.task import Task


class Operations(NamedTuple):
    """An agent's own tasks, by split; no source is in two."""

    train: list[Operation]
    validation: list[Operation]
    test: list[Operation]


def split_of(agent: AgentSpec) -> Operations:
    """The operations of the agent's task source; none where its task has no source of its own."""
    found = _operations(agent)
    where = _sides(agent, found)
    by_split: dict[Split, list[Operation]] = {"train": [], "validation": [], "test": []}
    for o in found:
        by_split[where[o.source]].append(o)
    return Operations(**by_split)


def side_of(agent: AgentSpec) -> Callable[[str], Split]:
    """The split of any source: of the task source's as `split_of` has it, of others by the same hash."""
    where = _sides(agent, _operations(agent))
    data = agent.data
    return lambda source: where.get(source) or side(source, data.validation_percent, data.test_percent)


def held_out(agent: AgentSpec, task: Task, suite: Suite) -> list[HeldOut]:
    """What training must not nearly repeat; each content once, test before validation."""
    split = split_of(agent)
    found: dict[str, Split] = {item.content: "test" for item in suite.items}
    by_split: tuple[tuple[Split, list[Operation]], ...] = (("test", split.test), ("validation", split.validation))
    for name, operations in by_split:
        for o in operations:
            found.setdefault(task.content_of(functional_negative.messages(o)), name)
    return [HeldOut(content, name) for content, name in found.items()]


def _operations(agent: AgentSpec) -> list[Operation]:
    return [] if agent.task == "generic" else sources.load(agent.source)


def _sides(agent: AgentSpec, found: list[Operation]) -> dict[str, Split]:
    if not found:
        return {}
    return split_sources({o.source for o in found}, agent.data.validation_percent, agent.data.test_percent)
