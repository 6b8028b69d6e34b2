"""Champion and challenger on the same items: the comparison, the regression suite, and the gate's word."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import msgspec

from pawl.bootstrap import current_route
from pawl.curation import dataset as datasets
from pawl.curation import regression
from pawl.errors import TrainingFailed
from pawl.evaluation.report import Comparison, GateDecision, ItemResult, SuiteResult
from pawl.fleet.data import DataSpec
from pawl.fleet.spec import AgentSpec
from pawl.improvement.asking import Respondent, answers, frozen_items, items_beyond, of_adapter, of_arm, side_by_side
from pawl.improvement.held_out import split_of
from pawl.improvement.placing import place_adapter, release
from pawl.improvement.preferring import by_model, recorded_items
from pawl.improvement.referring import with_token_accuracy
from pawl.improvement.steps import Lineage, OnProgress, training_of
from pawl.improvement.workplace import Candidate, Workplace
from pawl.monitoring.baseline import keep
from pawl.monitoring.timeline import span
from pawl.qe.item import Item
from pawl.qe.task import Task

Ask = Callable[[Sequence[Item], str], list[list[ItemResult]]]  # items, what they are called: answers of both models


def judge(place: Workplace, candidate: Candidate, on_progress: OnProgress) -> tuple[Comparison, GateDecision]:
    """Champion and challenger answer the same items of sources that training never saw, and the regression suite."""
    from pawl.evaluation.gate import gate
    from pawl.qe.tasks import task_of

    lineage = candidate.read("lineage", Lineage)
    if training_of(candidate).method == "full" or (candidate.folder / "training" / "merged").exists():
        raise TrainingFailed(
            f"{candidate.id} is a model of its own, in its folder training/merged: serve that on a replica and name it "
            "in fleet.yaml as an upstream; adapters that are hot-loaded need method lora, rslora or adalora"
        )
    version = datasets.load(place.settings.datasets_dir / lineage.dataset)
    # What was held out is what the dataset's own spec held out, whatever fleet.yaml says by now.
    agent = place.agent.model_copy(update={"data": DataSpec.model_validate(version.spec)} if version.spec else {})
    spec, task, known = agent.evaluation, task_of(agent.task), split_of(agent)
    model = spec.judge if not task.kinds else None  # an oracle needs no judge
    both, ask = _asking(place, candidate, lineage, agent, task, on_progress)
    if model is None:
        picked = frozen_items(agent, task, known.test)
        more = items_beyond(agent, task, known.test, picked)
    else:
        away = both[0].cloud or place.fleet.upstreams[model.upstream].kind == "cloud"
        picked, more = recorded_items(place, agent, task, away=away), []
    champion, challenger = ask(picked, "")
    beyond = ask(more, "protected slices, ") if more else ([], [])
    shared = None
    if model is not None:
        telling = _evaluating(f"judging by {model.upstream}", on_progress)
        champion, challenger, shared = by_model(
            place, agent, model, version, both, picked, (champion, challenger), telling
        )
    comparison = side_by_side(
        agent,
        task,
        picked,
        both,
        (champion, challenger),
        beyond=(beyond[0], beyond[1]),
        dataset=lineage.dataset_fingerprint,
        training_sources=version.sources,
        suite=_suite(place, agent, task, ask, (i for part in known for i in part), set(version.sources)),
        available=len(known.test),
    )
    comparison = msgspec.structs.replace(comparison, judge=shared)
    comparison = with_token_accuracy(
        place, agent, task, picked, both, comparison, lambda what, done, total: on_progress(what, done, total, "")
    )
    decision = gate(comparison, spec, place.control.rejection(lineage.adapter_sha256))
    candidate.write("comparison", comparison)
    candidate.write("gate", decision)
    if model is None:  # preferences of a judge are no scores that outcomes could be held against
        serves = current_route(place.fleet, place.control, agent).champion.name
        was, found = comparison.champion.score.mean, comparison.challenger.score.mean
        keep(place.control, agent.name, serves, lineage.adapter_sha256, was=was, found=found)
    release(place, both[1].model)
    return comparison, decision


def suite_items(suite: regression.Suite, task: Task, known: Iterable[Item]) -> list[Item]:
    """The suite's prompts as items (pure). What the oracle needs beyond the prompt is the known item's of the same
    content; a prompt that is nobody's has to say it all itself."""
    truths: Mapping[str, Item] = {task.content_of(i.messages): i for i in known} if suite.items else {}
    made = []
    for entry in suite.items:
        same = truths.get(entry.content)
        item = Item(
            id=entry.id,
            source=entry.source,
            messages=entry.messages,
            truth=same.truth if same else None,
            scenario=same.scenario if same else "",
        )  # what is asked is the suite's prompt, scrubbed as it was kept
        made.append(msgspec.structs.replace(item, scenario=task.class_of(item)))
    return made


def _suite(
    place: Workplace, agent: AgentSpec, task: Task, ask: Ask, known: Iterable[Item], trained: set[str]
) -> SuiteResult | None:
    """None where there is no suite and nothing that must pass."""
    from pawl.evaluation.suite import suite_of

    suite = regression.load(place.settings.regression_dir, agent.name)
    must = regression.must_pass(suite, agent.evaluation.must_pass)
    if not suite.items and not must:
        return None
    items = suite_items(suite, task, known)
    fair = [i for i in items if i.source not in trained]
    champion, challenger = ask(fair, "regression suite, ") if fair else ([], [])
    return suite_of(
        champion,
        challenger,
        must_pass=must,
        pass_score=agent.evaluation.pass_score,
        left_out=len(items) - len(fair),
    )


def _asking(
    place: Workplace, candidate: Candidate, lineage: Lineage, agent: AgentSpec, task: Task, on_progress: OnProgress
) -> tuple[tuple[Respondent, Respondent], Ask]:
    """Champion and challenger, and what has both answer and the task's oracle grade."""
    champion = of_arm(place, current_route(place.fleet, place.control, agent).champion, lineage.base_sha256)
    name = f"candidate-{lineage.adapter_sha256[:12]}"
    place_adapter(place, name, candidate.adapter, f"evaluation of {agent.name}")
    challenger = of_adapter(place, name, name, lineage.base_sha256 + lineage.adapter_sha256)

    def ask(items: Sequence[Item], called: str) -> list[list[ItemResult]]:
        sides = []
        for who in (champion, challenger):
            with span(place.timeline, "model", f"evaluate {who.name}"):
                telling = _evaluating(f"evaluating {called}{who.name}", on_progress)
                sides.append(answers(place, agent, task, items, who, telling))
        return sides

    return (champion, challenger), ask


def _evaluating(name: str, on_progress: OnProgress) -> Callable[[int, int], None]:
    return lambda done, total: on_progress(name, done, total, "")
