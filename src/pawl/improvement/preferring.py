"""Judges an agent without an oracle by a model's preferences: on recorded prompts, in both orders, held against people.

Each item's scores add up to one: the challenger's is the judge's preference for its answer, the champion's the rest.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import msgspec

from pawl.bootstrap import upstream_arm
from pawl.curation.dataset import DatasetVersion
from pawl.errors import ConfigError, NotAllowed, ServerNotUp, SourceError
from pawl.evaluation.metrics import CHARS_A_TOKEN, Prices
from pawl.evaluation.preferring import Known, Prefer, Preference, card, preferred
from pawl.evaluation.report import ItemResult, JudgeCard
from pawl.evaluation.runner import UNGRADED
from pawl.fleet.judge import JudgeSpec
from pawl.fleet.spec import AgentSpec
from pawl.improvement.asking import Respondent, of_arm, tell_audit
from pawl.improvement.recorded import asked_of, item_id
from pawl.improvement.workplace import Workplace
from pawl.qe.item import Item
from pawl.qe.task import Task, text_of

AT_ONCE = 8
PEOPLES = ("correction", "answers")  # origins of pairs that people's words made
LEAST_PAIRS = 20  # of these, below which nobody knows what a judge is worth
OVERHEAD_CHARS = 1500  # of the judge's own words around a pair
LONGEST_WORD = 300  # tokens of what it says


def recorded_items(place: Workplace, agent: AgentSpec, task: Task, *, away: bool) -> list[Item]:
    """The newest different prompts of clients whose source is held out for tests; SourceError where there are none.

    None of an interaction that the agent may not learn from; `away`: a cloud will see them, so only open ones.
    """
    found: dict[str, Item] = {}
    for digest, source, i in asked_of(place.lake, agent, task, "test"):
        if not (away and i.privacy != "open"):
            found.setdefault(digest, Item(id=item_id(digest), source=source, messages=i.messages))
        if len(found) >= agent.evaluation.items:
            break
    if not found:
        raise SourceError(
            f"{agent.name} has no oracle and no recorded prompt of a held-out source: nothing to judge on"
        )
    return sorted(found.values(), key=lambda i: i.id)


def by_model(
    place: Workplace,
    agent: AgentSpec,
    spec: JudgeSpec,
    version: DatasetVersion,
    both: tuple[Respondent, Respondent],
    items: Sequence[Item],
    results: tuple[Sequence[ItemResult], Sequence[ItemResult]],
    on_progress: Callable[[int, int], None],
) -> tuple[list[ItemResult], list[ItemResult], JudgeCard]:
    """Scores of champion and challenger by the judge's preferences, and how far people share these.

    Raises:
        ConfigError: the judge would judge itself, or its key is not set.
        NotAllowed: the agent's privacy forbids the cloud that judges, or it could cost more than the spec allows.
        ServerNotUp: it answers nothing.
    """
    who = of_arm(place, upstream_arm(place.fleet, spec.upstream), "")
    if who.model in {r.model for r in both}:
        raise ConfigError(f"agent {agent.name}", [f"evaluation.judge: {who.model} would judge its own answers"])
    known = peoples_pairs(version, spec.pairs, away=who.cloud)
    pairs = [(_words(i.messages), a, b) for i, a, b in zip(items, *results, strict=True)]
    texts = [(p, a.completion, b.completion) for p, a, b in pairs] + [(k.prompt, k.rejected, k.chosen) for k in known]
    cost = could_cost(texts, who.prices)
    if cost > spec.most_usd:
        raise NotAllowed(f"the judge could cost {cost:.2f} USD, evaluation.judge.most_usd allows {spec.most_usd:.2f}")
    tell_audit(place, agent, who, len(texts))
    said = _asked(_judge(who, spec), texts, on_progress)
    scored = [_scores(a, b, p) for (_, a, b), p in zip(pairs, said[: len(pairs)], strict=True)]
    shared = card(who.name, known, said[len(pairs) :], agent.evaluation.alpha, spec.min_agreement, LEAST_PAIRS)
    return [a for a, _ in scored], [b for _, b in scored], shared


def peoples_pairs(version: DatasetVersion, n: int, *, away: bool) -> list[Known]:
    """At most `n` pairs of answers of which people's words made one better, the same ones each time (pure).

    `away`: a cloud will see them, so only open ones.
    """
    found = [p for p in version.pairs if p.origin in PEOPLES and not (away and p.privacy != "open")]
    found.sort(key=lambda p: hashlib.sha256(p.id.encode()).digest())
    return [Known(source=p.source, prompt=_words(p.messages), chosen=p.chosen, rejected=p.rejected) for p in found[:n]]


def could_cost(texts: Sequence[tuple[str, str, str]], prices: Prices | None) -> float:
    """US dollars of asking about all of these in both orders (pure)."""
    if prices is None:
        return 0.0
    characters = sum(len(p) + len(a) + len(b) + OVERHEAD_CHARS for p, a, b in texts)
    return 2 * prices.usd(characters / CHARS_A_TOKEN, len(texts) * LONGEST_WORD)


def _judge(who: Respondent, spec: JudgeSpec) -> Prefer:
    from pawl.evaluation.judge_mlflow import MlflowJudge

    return MlflowJudge(who.model, f"{who.url}/v1", spec.instructions, who.api_key)


def _asked(
    prefer: Prefer, texts: Sequence[tuple[str, str, str]], on_progress: Callable[[int, int], None]
) -> list[Preference]:
    found: list[Preference] = []
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for preference in pool.map(lambda t: preferred(prefer, *t), texts):
            found.append(preference)
            if len(found) == AT_ONCE and all(p.problem for p in found):
                raise ServerNotUp(f"the judge answers nothing ({preference.problem}); run the evaluation again later")
            on_progress(len(found), len(texts))
    return found


def _scores(a: ItemResult, b: ItemResult, said: Preference) -> tuple[ItemResult, ItemResult]:
    """Both sides scored. A model that gave no answer loses to one that did; without the judge's word nobody scores."""
    silent = (not a.completion.strip(), not b.completion.strip())
    outage = next((r.problem for r in (a, b) if r.score is None and r.problem != UNGRADED), "")
    if outage or (silent == (False, False) and said.problem):
        gone = {"score": None, "problem": outage or said.problem}
        return msgspec.structs.replace(a, **gone), msgspec.structs.replace(b, **gone)
    second = {(True, False): 1.0, (False, True): 0.0, (True, True): 0.5}.get(silent, said.value)
    told = "the judge went by the order" if said.turned else ""
    return (
        msgspec.structs.replace(a, score=1.0 - second, conforms=not silent[0], problem=told),
        msgspec.structs.replace(b, score=second, conforms=not silent[1], problem=told),
    )


def _words(messages: Sequence[Mapping[str, Any]]) -> str:
    return "\n".join(f"{m.get('role')}: {text_of(m.get('content'))}" for m in messages)
