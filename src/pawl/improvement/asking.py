"""Who can be asked an agent's items: base model, adapters and upstreams, by the names that people use for them."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec

from pawl.bootstrap import current_route, upstream_arm
from pawl.errors import ConfigError, NotAllowed, SourceError
from pawl.evaluation.metrics import Prices
from pawl.evaluation.report import ItemResult
from pawl.evaluation.runner import answer_items
from pawl.fleet.spec import AgentSpec
from pawl.fleet.upstream import UpstreamSpec
from pawl.improvement.held_out import split_of
from pawl.improvement.promotion import present
from pawl.improvement.workplace import Candidate, Workplace
from pawl.monitoring.economics import price
from pawl.qe.item import Item
from pawl.qe.task import Task
from pawl.registry.adapter_hash import adapter_sha256
from pawl.rollout.route import Arm
from pawl.serving import vllm_adapters

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
        vllm_adapters.reconcile(place.settings.vllm_url, {name: str(candidate.adapter.resolve())})
        return of_adapter(place, name, name, base_sha256 + sha256)
    known = ["base", "champion", *ALIASES, *place.fleet.upstreams]
    raise ConfigError(
        f"agent {place.agent_name}",
        [f"no model is called {who!r}: write one of {', '.join(known)}, a version's number, or a candidate's id"],
    )


def of_arm(place: Workplace, arm: Arm, base_sha256: str) -> Respondent:
    """The model behind an arm of a route. ConfigError and NotAllowed as `respondent`."""
    upstream = place.fleet.upstreams[arm.upstream]
    if arm.kind == "local" and arm.upstream != place.fleet.local_upstream:
        # Another server of one's own: it has a model of its own, and no adapters of ours.
        model = upstream.model or arm.model
        url = _expanded(place, upstream).removesuffix("/v1")
        digest = f"{upstream.base_url} {model}"
        return Respondent(arm.upstream, model, url, digest, prices_of(upstream), _key(arm.upstream, upstream))
    if arm.kind == "local":
        folder = place.settings.adapters_dir / arm.name
        # Answers are kept by the weights that gave them: a champion's are those it gave as a challenger.
        weights = adapter_sha256(folder) if folder.exists() else arm.name
        return of_adapter(place, arm.name, arm.model, base_sha256 + weights)
    if "open" not in (place.agent.privacy,) or place.fleet.gateway.privacy != "open":
        raise NotAllowed(
            f"{place.agent_name} is private: its items are not sent to {arm.upstream}, a cloud; compare local models"
        )
    return Respondent(
        name=f"{arm.name} (a stand-in)" if upstream.stand_in else arm.name,
        model=arm.model,
        url=_expanded(place, upstream).removesuffix("/v1"),
        digest=f"{upstream.base_url} {arm.model}",
        prices=prices_of(upstream),
        api_key=_key(arm.upstream, upstream),
        cloud=True,
    )


def of_adapter(place: Workplace, name: str, model: str, digest: str) -> Respondent:
    """A model on the serving cluster."""
    upstream = place.fleet.upstreams[place.fleet.local_upstream]
    return Respondent(name, model, place.settings.vllm_url, digest, prices_of(upstream))


def prices_of(upstream: UpstreamSpec) -> Prices | None:
    """US dollars for a million tokens there; None where fleet.yaml and the catalogue know none."""
    if upstream.usd_per_million_prompt is None and upstream.usd_per_million_completion is None:
        return None
    return Prices(price(upstream, 1_000_000, 0, 0), price(upstream, 0, 1_000_000, 0))


def frozen_items(agent: AgentSpec, task: Task) -> list[Item]:
    """The items that every model of the agent is asked: the same ones each time, of sources that none trains on.

    SourceError where the task has none.
    """
    held = split_of(agent).test
    if not held:
        raise SourceError(
            f"the task {agent.task!r} of {agent.name} has no oracle, so nothing can be judged or promoted"
        )
    picked = random.Random(agent.evaluation.items).sample(held, min(agent.evaluation.items, len(held)))
    return [msgspec.structs.replace(i, scenario=task.class_of(i)) for i in picked]


def answers(
    place: Workplace,
    agent: AgentSpec,
    task: Task,
    items: Sequence[Item],
    who: Respondent,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[ItemResult]:
    """Greedy answers of one model to these items, graded; those that were given before are not asked again."""
    return answer_items(
        items,
        who.model,
        who.url,
        max_tokens=agent.max_tokens,
        cache_dir=place.settings.home / "answers",
        model_hash=who.digest,
        graders=1 if task.instant else GRADERS,
        api_key=who.api_key,
        grade=lambda item, text: task.grade(item.messages, text, item.truth),
        on_progress=on_progress,
    )


def _expanded(place: Workplace, upstream: UpstreamSpec) -> str:
    url = upstream.base_url.rstrip("/")
    for name, value in (("PAWL_VLLM_URL", place.settings.vllm_url), ("PAWL_STANDIN_URL", place.settings.standin_url)):
        url = url.replace("${" + name + "}", value)
    return url


def _key(name: str, upstream: UpstreamSpec) -> str | None:
    if not upstream.api_key_env and not upstream.api_key_file:
        return None
    key = Path(upstream.api_key_file).read_text().strip() if upstream.api_key_file else None
    key = key or os.environ.get(upstream.api_key_env or "")
    if not key:
        raise ConfigError(f"upstream {name}", [f"its key is not set: export {upstream.api_key_env}"])
    return key
