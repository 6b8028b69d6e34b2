"""Measures a chain end to end: clients' questions through the gateway, its answers by the oracle, and by a server."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import cast

from pawl import bootstrap
from pawl.errors import ConfigError, NotAllowed, SourceError
from pawl.evaluation.chains import ChainAnswer, ChainReport, report
from pawl.evaluation.report import ItemResult
from pawl.evaluation.runner import answer_items
from pawl.fleet.chain import ChainSpec
from pawl.fleet.source import TaskSourceSpec
from pawl.fleet.spec import FleetSpec
from pawl.improvement.asking import frozen_items
from pawl.improvement.held_out import split_of
from pawl.qe.item import Item
from pawl.qe.operations import live
from pawl.qe.operations.prompt import parsed
from pawl.qe.operations.task import OperationTask
from pawl.qe.task import Task
from pawl.qe.tasks import task_of
from pawl.settings import Settings

AT_ONCE = 8


def chain_named(fleet: FleetSpec, name: str) -> ChainSpec:
    """The chain of that name. ConfigError with the names there are."""
    found = next((c for c in fleet.chains if c.name == name), None)
    if found is None:
        there = ", ".join(c.name for c in fleet.chains) or "none; add `chains:` to the fleet, see docs/chains.md"
        raise ConfigError("fleet", [f"no chain is called {name!r}; there are: {there}"])
    return found


def graded_by(chain: ChainSpec) -> str:
    """The agent whose form the chain's answer has: the one whose entries are selected, else the one that answers."""
    steps = {s.name: s for s in chain.steps}
    step = steps[chain.answer or chain.steps[-1].name]
    while step.select is not None:
        step = steps[step.select]
    return step.agents[0]


def items_for(fleet: FleetSpec, chain: ChainSpec, document: str = "", max_schema_chars: int = 400) -> list[Item]:
    """The held-out items of the agent whose form the answer has, or the operations of an OpenAPI document.

    SourceError where that agent's task has no oracle, or the document is of no use to it.
    """
    agent = fleet.agent(graded_by(chain))
    task = task_of(agent.task)
    if document and not task.kinds:
        raise SourceError(f"chain {chain.name} answers as {agent.name}, whose task {agent.task!r} has no oracle")
    if document:
        return list(task.items(TaskSourceSpec(kind="openapi", location=document, max_schema_chars=max_schema_chars)))
    return frozen_items(agent, task, split_of(agent).test)


def measure(
    settings: Settings,
    chain: ChainSpec,
    items: Sequence[Item],
    *,
    against: str = "",
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> ChainReport:
    """Ask the chain through the gateway and judge what it answers; with `against`, send its right test cases there.

    Raises:
        NotAllowed: no key is set.
        ServerNotUp: the gateway, or the server to be tested, does not answer.
        ConfigError: the answers of this chain are no test cases that could be sent anywhere.
    """
    if not settings.api_key:
        raise NotAllowed("set PAWL_API_KEY to a key with role client; `pawl keys create client NAME` makes one")
    fleet = bootstrap.fleet(settings)
    agent = fleet.agent(graded_by(chain))
    task = task_of(agent.task)
    if against and getattr(task, "expects", None) is None:
        raise ConfigError(f"chain {chain.name}", [f"answers of task {task.name} are no test cases; no --against then"])
    results = answer_items(
        items, chain.name, settings.gateway_url, max_tokens=agent.max_tokens, model_hash=chain.name,
        grade=lambda item, text: task.grade(item.messages, text, item.truth),
        concurrency=AT_ONCE, api_key=settings.api_key, on_progress=on_progress,
    )  # fmt: skip
    with ThreadPoolExecutor(AT_ONCE) as pool:
        answers = list(pool.map(lambda item, result: _answer(task, item, result, against), items, results))
    control = bootstrap.control(settings)
    models = {
        name: bootstrap.current_route(fleet, control, fleet.agent(name)).champion.name
        for step in chain.steps
        for name in step.agents
    }
    return report(chain.name, models, answers, agent.evaluation.alpha)


def _answer(task: Task, item: Item, result: ItemResult, against: str) -> ChainAnswer:
    parts = task.parts(item.messages, result.completion) or ()
    right = [p for p in parts if not p.problem]
    ran: Counter[str] = Counter()
    if against:
        expected = cast(OperationTask, task).expects
        assert expected is not None
        operation = parsed(item.messages)
        ran.update(live.try_case(operation, p.entry, expected, against) for p in right)
    return ChainAnswer(
        item=item.id,
        source=item.source,
        score=result.score,
        parts=len(parts),
        right=len(right),
        problems=dict(Counter(p.problem for p in parts if p.problem)),
        ran=dict(ran),
        latency_s=result.latency_s,
        problem="" if result.completion else result.problem,
    )
