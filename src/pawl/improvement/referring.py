"""Two models against right answers of their task: token accuracy, beside the comparison and never in its way."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Sequence

import msgspec

from pawl.evaluation.report import Comparison, ModelResult, TokenAccuracy
from pawl.evaluation.token_accuracy import Measured, Reference, measure_tokens, token_accuracy
from pawl.fleet.spec import AgentSpec
from pawl.improvement.asking import Respondent
from pawl.improvement.workplace import Workplace
from pawl.qe.item import Item
from pawl.qe.task import Task

log = logging.getLogger("pawl.evaluation")

WRITING_S = 60.0  # references that run code to be sure of themselves take long
CLOUD = "not measured: a cloud's API does not tell how likely the tokens of a given answer are"

Tell = Callable[[str, int, int], None]  # what, done, total


def with_token_accuracy(
    place: Workplace,
    agent: AgentSpec,
    task: Task,
    items: Sequence[Item],
    both: tuple[Respondent, Respondent],
    comparison: Comparison,
    tell: Tell = lambda what, done, total: None,
) -> Comparison:
    """The comparison with the token accuracy of each side on the same references, or with why there is none.

    Of the first `evaluation.token_accuracy_items` items that have a reference; as it is where none has one. No failure
    gets out of here: the figure decides nothing.
    """
    try:
        known = references(task, items, agent.evaluation.token_accuracy_items)
        if not known:
            return comparison
        seen = [_measured(place, who, known, tell) for who in both]
        shared = [set(m.counted) for m in seen if m.counted]
        common = set.intersection(*shared) if shared else set()
        same = [r for r in known if r.item in common]
        found = [token_accuracy(same if m.counted else [], m.counted, comparison.alpha, m.problem) for m in seen]
    except Exception as e:
        log.warning("the token accuracy of %s is not known: %s: %s", agent.name, type(e).__name__, e)
        found = [TokenAccuracy(problem=f"not measured: {type(e).__name__}")] * 2
    return msgspec.structs.replace(
        comparison, champion=_with(comparison.champion, found[0]), challenger=_with(comparison.challenger, found[1])
    )


def references(task: Task, items: Sequence[Item], most: int, seconds: float = WRITING_S) -> list[Reference]:
    """Right answers to the first of these items, the same ones each time, as many as can be written in the time."""
    found: list[Reference] = []
    until = time.monotonic() + seconds
    for item in items:
        if len(found) >= most or time.monotonic() > until:
            break
        text = task.reference(item, random.Random(item.id))
        if text:
            found.append(Reference(item.id, item.source, item.messages, text))
    return found


def _measured(place: Workplace, who: Respondent, known: Sequence[Reference], tell: Tell) -> Measured:
    if who.cloud:
        return Measured({}, CLOUD)
    found = measure_tokens(
        known,
        who.model,
        who.url,
        model_hash=who.digest,
        api_key=who.api_key,
        cache_dir=place.settings.home / "answers",
        on_progress=lambda done, total: tell(f"token accuracy of {who.name}", done, total),
    )
    if found.problem:
        log.warning("token accuracy of %s: %s", who.name, found.problem)
    return found


def _with(side: ModelResult, found: TokenAccuracy) -> ModelResult:
    if side.metrics is None:
        return side
    return msgspec.structs.replace(side, metrics=msgspec.structs.replace(side.metrics, token_accuracy=found))
