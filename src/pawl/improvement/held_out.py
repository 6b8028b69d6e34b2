"""What an agent never learns from: the tasks of validation and test sources, and its regression suite."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from pawl.curation.dataset import Split
from pawl.curation.pool import HeldOut
from pawl.curation.regression import Suite
from pawl.curation.split import side, split_sources
from pawl.fleet.spec import AgentSpec
from pawl.qe.item import Item
from pawl.qe.task import Task
from pawl.qe.tasks import task_of


class Items(NamedTuple):
    """An agent's own tasks, by split; no source is in two."""

    train: list[Item]
    validation: list[Item]
    test: list[Item]


def split_of(agent: AgentSpec) -> Items:
    """The items of the agent's task source; none where its task has no source of its own."""
    found = _items(agent)
    where = _sides(agent, found)
    by_split: dict[Split, list[Item]] = {"train": [], "validation": [], "test": []}
    for i in found:
        by_split[where[i.source]].append(i)
    return Items(**by_split)


def side_of(agent: AgentSpec) -> Callable[[str], Split]:
    """The split of any source: of the task source's as `split_of` has it, of others by the same hash."""
    where = _sides(agent, _items(agent))
    data = agent.data
    return lambda source: where.get(source) or side(source, data.validation_percent, data.test_percent)


def held_out(agent: AgentSpec, task: Task, suite: Suite) -> list[HeldOut]:
    """What training must not nearly repeat; each content once, test before validation."""
    split = split_of(agent)
    found: dict[str, Split] = {item.content: "test" for item in suite.items}
    by_split: tuple[tuple[Split, list[Item]], ...] = (("test", split.test), ("validation", split.validation))
    for name, items in by_split:
        for i in items:
            found.setdefault(task.content_of(i.messages), name)
    return [HeldOut(content, name) for content, name in found.items()]


def _items(agent: AgentSpec) -> list[Item]:
    return list(task_of(agent.task).items(agent.source))


def _sides(agent: AgentSpec, found: list[Item]) -> dict[str, Split]:
    if not found:
        return {}
    return split_sources({i.source for i in found}, agent.data.validation_percent, agent.data.test_percent)
