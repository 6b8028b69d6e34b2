"""What a model that goes on learning must not lose: earlier examples to hold on to, and what was forgotten."""

from __future__ import annotations

import hashlib
from collections import defaultdict, deque
from collections.abc import Iterable, Sequence
from pathlib import Path

from pawl.curation import dataset as datasets
from pawl.curation import regression
from pawl.curation.dataset import DatasetVersion, Example
from pawl.curation.permission import MODES, refusal
from pawl.curation.prepare import prompt_of
from pawl.evaluation.forgetting import Forgetting, forgetting
from pawl.evaluation.report import Comparison, ItemResult
from pawl.fleet.data import DataSpec
from pawl.improvement.held_out import side_of
from pawl.improvement.workplace import Candidate, Workplace
from pawl.training.policy import TELLS_PRIVACY

LEAST = 5  # items of a class that has a row of its own


def earlier_examples(place: Workplace, version: DatasetVersion, n: int) -> list[Example]:
    """At most `n` examples of earlier weeks, the same ones each time, spread over datasets and scenario classes.

    From what `version` replays, and from the datasets of all adapters that were promoted: nobody vouches for the data
    of a refused one. Never of a source that is held out or reserved for the regression suite now, nor one that the
    lake holds no longer or that is in quarantine; none that `version` itself teaches anew. Consent and privacy count as
    fleet.yaml has them now: what an adapter may not learn from must not hold it either.
    """
    agent = place.agent.model_copy(update={"data": DataSpec.model_validate(version.spec)} if version.spec else {})
    side = side_of(agent)
    suite = regression.load(place.settings.regression_dir, place.agent_name)
    barred = {*suite.reserved, *(i.source for i in suite.items)}
    new = {prompt_of(e) for e in version.train if not e.replayed}
    pools = [[e for e in _telling(place, version) if e.replayed]]
    pools += [list(_telling(place, datasets.load(p))) for p in _promoted(place)]
    pools = [
        [e for e in pool if e.kind != "variant" and e.source not in barred and side(e.source) == "train"
         and prompt_of(e) not in new and not refusal(place.agent.data, e.privacy, e.consent)]
        for pool in pools
    ]  # fmt: skip
    known = _recorded(place, (e for pool in pools for e in pool))
    return spread([[e for e in pool if known.issuperset(e.interactions)] for pool in pools], n)


def spread(pools: Sequence[Sequence[Example]], n: int) -> list[Example]:
    """At most `n` examples of different prompts, in turns from each pool and scenario class (pure).

    Within one the order is that of a hash, so that it depends on nothing but what is there.
    """
    strata: dict[tuple[int, str], deque[Example]] = defaultdict(deque)
    for number, pool in enumerate(pools):
        for e in sorted(pool, key=lambda e: hashlib.sha256(e.id.encode()).digest()):
            strata[number, e.scenario].append(e)
    ring = deque(strata[key] for key in sorted(strata))
    seen: set[str] = set()
    found: list[Example] = []
    while ring and len(found) < n:
        queue = ring.popleft()
        e = queue.popleft()
        if prompt_of(e) not in seen:
            seen.add(prompt_of(e))
            found.append(e)
        if queue:
            ring.append(queue)
    return found


def forgotten(place: Workplace) -> Forgetting | None:
    """The first champion and every challenger that took over, by task class; None before two of them share items."""
    rollouts = [r for r in reversed(place.control.rollouts(place.agent_name)) if r.stage == "done"]
    comparisons = [
        (f"week {n}", c) for n, r in enumerate(rollouts, start=1) if (c := judged(place, r.version)) is not None
    ]
    return matrix(comparisons, place.agent.evaluation.alpha)


def matrix(comparisons: Sequence[tuple[str, Comparison]], alpha: float) -> Forgetting | None:
    """From the comparisons of promoted challengers, oldest first (pure). Whatever was learnt was learnt from the first
    challenger on, so backward transfer counts from there."""
    if not comparisons:
        return None
    weeks: list[tuple[str, Sequence[ItemResult]]] = [("before", comparisons[0][1].champion.items)]
    weeks += [(name, c.challenger.items) for name, c in comparisons]
    classes = {i.item: i.scenario for _, items in weeks for i in items}
    since = dict.fromkeys({*classes.values(), "other"}, 1)
    return forgetting(weeks, classes.__getitem__, alpha=alpha, learnt=since, least=LEAST)


def judged(place: Workplace, number: str) -> Comparison | None:
    """The comparison that a registered version was approved on; None where its evidence is not on this machine."""
    version = place.registry.version(place.agent_name, number)
    folder = Candidate(place.settings.home / "candidates" / version.tags.get("candidate", "-"))
    return folder.read("comparison", Comparison) if folder.has("comparison") else None


def _telling(place: Workplace, version: DatasetVersion) -> tuple[Example, ...]:
    """Its training examples; none where data.privacy is narrowed and they are from before examples told theirs."""
    narrowed = set(place.agent.data.privacy) != set(MODES)
    return () if narrowed and version.v < TELLS_PRIVACY else version.train


def _promoted(place: Workplace) -> list[Path]:
    """Dataset files of the adapters that were promoted, newest first."""
    rollouts = place.control.rollouts(place.agent_name)
    numbers = {r.version for r in rollouts if r.stage == "done"}
    found = []
    for v in place.registry.versions(place.agent_name):
        path = place.settings.datasets_dir / v.tags.get("dataset", "-")
        if v.number in numbers and path.is_file() and path not in found:
            found.append(path)
    return found


def _recorded(place: Workplace, examples: Iterable[Example]) -> set[str]:
    """Of the records that these come from, those that the lake still holds and that are not in quarantine."""
    ids = {i for e in examples for i in e.interactions}
    known = set(place.lake.owners(ids))
    if left := ids - known:
        known |= left & {o.id for o in place.lake.observations(place.agent_name, None, None)}
    return known - {q.row for q in place.control.quarantined(place.agent_name) if q.table == "interactions"}
