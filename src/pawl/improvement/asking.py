"""Who can be asked an agent's items: base model, adapters and upstreams, by the names that people use for them."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import msgspec

from pawl.bootstrap import current_route, upstream_arm
from pawl.errors import ConfigError, NotAllowed, SourceError
from pawl.evaluation.failures import failures
from pawl.evaluation.metrics import Prices
from pawl.evaluation.paired import compare
from pawl.evaluation.report import Comparison, ItemResult, SuiteResult
from pawl.evaluation.runner import answer_items
from pawl.evaluation.slices import FORMS
from pawl.fleet.reach import NoKey, expanded, key_of
from pawl.fleet.spec import AgentSpec
from pawl.fleet.upstream import UpstreamSpec
from pawl.gateway.access.privacy import host
from pawl.improvement.placing import a_replica, place_adapter, present
from pawl.improvement.workplace import Candidate, Workplace
from pawl.qe.item import Item
from pawl.qe.task import Task
from pawl.qe.tasks import task_of
from pawl.registry.adapter_hash import adapter_sha256
from pawl.rollout.route import Arm
from pawl.workers.port import Tell

ASKED_AT_ONCE = 32
SHARD = 16  # items that one of several machines takes at a time
GRADERS = 2  # answers graded at a time where that starts processes
ALIASES = ("challenger", "previous")


class Respondent(NamedTuple):
    """One model that answers."""

    name: str
    model: str  # its name at the server
    url: str  # ends before /v1
    digest: str  # of its weights, as far as they are known: answers are kept by it
    prices: Prices | None  # None: not known
    api_key: str | None = None
    cloud: bool = False


def respondent(place: Workplace, who: str, base_sha256: str) -> Respondent:
    """`base`, `champion`, `challenger`, `previous`, a version's number, a candidate's id, or an upstream's name.

    Adapters are loaded on the cluster first.

    Raises:
        ConfigError: nobody bears that name, or an upstream's key is not set.
        NotAllowed: the agent's privacy forbids the cloud that is named.
    """
    local = place.fleet.local_upstream
    if who in ("base", local):
        return of_arm(place, upstream_arm(place.fleet, local), base_sha256)
    if who == "champion":
        return of_arm(place, current_route(place.fleet, place.control, place.agent).champion, base_sha256)
    if who in place.fleet.upstreams:
        return of_arm(place, upstream_arm(place.fleet, who), base_sha256)
    version = None
    if who in ALIASES:
        version = place.registry.by_alias(place.agent_name, who)
    elif who.isdigit():
        version = place.registry.version(place.agent_name, who)
    if version is not None:
        present(place, version)
        return of_adapter(place, version.adapter, version.adapter, base_sha256 + version.sha256)
    candidate = Candidate(place.settings.home / "candidates" / who)
    if Path(who).name == who and candidate.adapter.is_dir():
        sha256 = adapter_sha256(candidate.adapter)
        name = f"candidate-{sha256[:12]}"
        place_adapter(place, name, candidate.adapter, f"comparison of {place.agent_name}")
        return of_adapter(place, name, name, base_sha256 + sha256)
    known = ["base", "champion", *ALIASES, *place.fleet.upstreams]
    raise ConfigError(
        f"agent {place.agent_name}",
        [f"no model is called {who!r}: write one of {', '.join(known)}, a version's number, or a candidate's id"],
    )


def of_arm(place: Workplace, arm: Arm, base_sha256: str) -> Respondent:
    """The model behind an arm of a route. ConfigError and NotAllowed as `respondent`."""
    if arm.kind == "local" and arm.upstream == place.fleet.local_upstream:
        folder = place.settings.adapters_dir / arm.name
        # Answers are kept by the weights that gave them: a champion's are those it gave as a challenger.
        weights = adapter_sha256(folder) if folder.exists() else arm.name
        return of_adapter(place, arm.name, arm.model, base_sha256 + weights)
    if arm.kind == "cloud" and (place.agent.privacy != "open" or place.fleet.gateway.privacy != "open"):
        raise NotAllowed(
            f"{place.agent_name} is private: its items are not sent to {arm.upstream}, a cloud; compare local models"
        )
    upstream = place.fleet.upstreams[arm.upstream]
    # Another server of one's own has a model of its own, and no adapters of ours: its arm bears our base model's name.
    name, model = (arm.name, arm.model) if arm.kind == "cloud" else (arm.upstream, upstream.model or arm.model)
    try:
        key = key_of(upstream, "here")
    except NoKey as e:
        raise ConfigError(f"upstream {arm.upstream}", [str(e)]) from e
    return Respondent(
        name=f"{name} (a stand-in)" if upstream.stand_in else name,
        model=model,
        url=expanded(upstream.base_url, place.settings.places).rstrip("/").removesuffix("/v1"),
        digest=f"{upstream.base_url} {model}",
        prices=prices_of(upstream),
        api_key=key,
        cloud=arm.kind == "cloud",
    )


def of_adapter(place: Workplace, name: str, model: str, digest: str) -> Respondent:
    """A model on the serving cluster."""
    upstream = place.fleet.upstreams[place.fleet.local_upstream]
    return Respondent(name, model, a_replica(place), digest, prices_of(upstream))


def prices_of(upstream: UpstreamSpec) -> Prices | None:
    """US dollars for a million tokens there; None where fleet.yaml and the catalogue know none."""
    prompt, completion = upstream.usd_per_million_prompt, upstream.usd_per_million_completion
    return None if prompt is None or completion is None else Prices(prompt, completion)


def frozen_items(agent: AgentSpec, task: Task, held: Sequence[Item]) -> list[Item]:
    """The items that every model of the agent is asked: the same ones each time, of those held out for tests.

    SourceError where the task has none.
    """
    if not held:
        raise SourceError(
            f"the task {agent.task!r} of {agent.name} has no oracle, so nothing can be judged or promoted"
        )
    picked = random.Random(agent.evaluation.items).sample(held, min(agent.evaluation.items, len(held)))
    return [msgspec.structs.replace(i, scenario=task.class_of(i)) for i in picked]


def items_beyond(agent: AgentSpec, task: Task, held: Sequence[Item], picked: Sequence[Item]) -> list[Item]:
    """More held-out items of the protected classes that have fewer than `evaluation.protected_items` among the picked.

    The same ones each time. With the picked ones they are a random sample of their class, of no more than that.
    """
    there = Counter(i.scenario for i in picked)
    spec = agent.evaluation
    short = {c: n for c in spec.protected if c not in FORMS and (n := spec.protected_items - there[c]) > 0}
    if not short:
        return []
    known = {i.id for i in picked}
    rest = [i for i in held if i.id not in known]
    random.Random(f"beyond {spec.items}").shuffle(rest)
    found = []
    for item in rest:
        name = task.class_of(item)
        if short.get(name, 0) > 0:
            short[name] -= 1
            found.append(msgspec.structs.replace(item, scenario=name))
            if not any(short.values()):
                break
    return found


def side_by_side(
    agent: AgentSpec,
    task: Task,
    items: Sequence[Item],
    both: tuple[Respondent, Respondent],
    results: tuple[Sequence[ItemResult], Sequence[ItemResult]],
    *,
    beyond: tuple[Sequence[ItemResult], Sequence[ItemResult]] = ((), ()),
    dataset: str = "",
    training_sources: Collection[str] = (),
    suite: SuiteResult | None = None,
    available: int = 0,
) -> Comparison:
    """The comparison of two models' answers to the same items, as the agent's evaluation wants it."""
    spec, by_id = agent.evaluation, {i.id: i for i in items}

    def failure(a: ItemResult) -> str:
        return task.cluster_key(by_id[a.item].messages, a.completion, by_id[a.item].truth)

    return compare(
        agent.name,
        (both[0].name, results[0]),
        (both[1].name, results[1]),
        margin=spec.margin,
        alpha=spec.alpha,
        power=spec.power,
        dataset=dataset,
        training_sources=set(training_sources),
        protected=spec.protected,
        protected_margin=spec.protected_margin,
        failures=failures(*results, failure, spec.pass_score),
        suite=suite,
        available=available,
        prices=(both[0].prices, both[1].prices),
        beyond=beyond,
    )


def tell_audit(place: Workplace, agent: AgentSpec, who: Respondent, items: int) -> None:
    """Where a cloud is about to be asked: the audit log keeps where texts go, and how many at most, before they do.

    PawlError where that cannot be written: then nothing may leave.
    """
    if who.cloud:
        detail = {"agent": agent.name, "upstream": who.name, "host": host(who.url), "items": items}
        place.control.audit("cloud evaluation", "evaluation", detail, time.time())


def answers(
    place: Workplace,
    agent: AgentSpec,
    task: Task,
    items: Sequence[Item],
    who: Respondent,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[ItemResult]:
    """Greedy answers of one model to these items, graded; those that were given before are not asked again."""
    tell_audit(place, agent, who, len(items))
    workers = place.workers
    if not workers.elsewhere:
        return _answers(place, agent, task, items, who, on_progress)
    shards = [items[i : i + SHARD] for i in range(0, len(items), SHARD)]
    at_once = max(1, ASKED_AT_ONCE // workers.slots())
    done = [0] * len(shards)

    def told(number: int, so_far: int) -> None:
        done[number] = so_far
        on_progress(sum(done), len(items))

    made: dict[int, list[ItemResult]] = {}
    with closing(workers.run(_shard, ((place, agent, s, who, at_once) for s in shards), told)) as running:
        for shard in running:
            made[shard.number] = shard.get()
    return [result for number in range(len(shards)) for result in made[number]]


def _shard(
    tell: Tell, place: Workplace, agent: AgentSpec, items: Sequence[Item], who: Respondent, at_once: int
) -> list[ItemResult]:
    """Some of the items, on the machine where this runs: its sandbox has to hold what the fleet demands, too."""
    task = task_of(place.fleet.agent(agent.name).task)
    return _answers(place, agent, task, items, who, lambda done, total: tell(done), at_once)


def _answers(
    place: Workplace,
    agent: AgentSpec,
    task: Task,
    items: Sequence[Item],
    who: Respondent,
    on_progress: Callable[[int, int], None],
    at_once: int = ASKED_AT_ONCE,
) -> list[ItemResult]:
    return answer_items(
        items,
        who.model,
        who.url,
        max_tokens=agent.max_tokens,
        cache_dir=place.settings.home / "answers",
        model_hash=who.digest,
        concurrency=at_once,
        graders=1 if task.instant else GRADERS,
        api_key=who.api_key,
        grade=lambda item, text: task.grade(item.messages, text, item.truth),
        on_progress=on_progress,
    )
