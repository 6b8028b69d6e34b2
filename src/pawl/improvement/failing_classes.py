"""What the last comparison says the next dataset should have more of: the classes in which what serves now fails."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from typing import Literal

from pawl.bootstrap import current_route
from pawl.curation.focus import Focus, failing
from pawl.errors import LakeError
from pawl.evaluation.report import Comparison
from pawl.improvement.steps import Lineage
from pawl.improvement.workplace import Candidate, Workplace
from pawl.qe.item import Item
from pawl.qe.task import Task

Side = Literal["champion", "challenger"]


def focus(place: Workplace) -> tuple[Focus, ...]:
    """Of the newest comparison on this machine that asked what serves now, as champion or as the challenger that it was
    then; nothing where there is none."""
    serving = current_route(place.fleet, place.control, place.agent).champion.name
    for candidate, made in comparisons(place):
        side = _side(candidate, made, serving)
        if side is not None:
            return failing(classes_of(made, side, place.agent.evaluation.pass_score))
    return ()


def comparisons(place: Workplace) -> Iterator[tuple[Candidate, Comparison]]:
    """The agent's, newest first; what cannot be read is left out."""
    folders = (place.settings.home / "candidates").glob(f"{place.agent_name}-*/comparison.json")
    for path in sorted(folders, key=lambda p: p.stat().st_mtime, reverse=True):
        candidate = Candidate(path.parent)
        try:
            made = candidate.read("comparison", Comparison)
        except LakeError:
            continue
        if made.agent == place.agent_name:
            yield candidate, made


def classes_of(made: Comparison, side: Side, pass_score: float) -> list[Focus]:
    """Each scenario class with what that side got wrong of it and how (pure)."""
    model = made.champion if side == "champion" else made.challenger
    graded = [i for i in model.items if i.score is not None and i.scenario]
    asked = Counter(i.scenario for i in graded)
    failed = Counter(i.scenario for i in graded if (i.score or 0.0) < pass_score)
    ways: dict[str, dict[str, int]] = defaultdict(dict)
    for pattern in made.failures:
        counts = pattern.champion_classes if side == "champion" else pattern.challenger_classes
        for name, n in counts.items():
            ways[name][pattern.name] = n
    return [Focus(name=c, asked=n, failed=failed[c], ways=dict(ways[c])) for c, n in sorted(asked.items())]


def classes_by_content(task: Task, items: Sequence[Item]) -> dict[str, str]:
    """The class of each of these items by what it is about (pure): prompts of the same content are of that class."""
    return {task.content_of(i.messages): name for i in items if (name := task.class_of(i))}


def _side(candidate: Candidate, made: Comparison, serving: str) -> Side | None:
    if made.champion.name == serving:
        return "champion"
    # A registered adapter bears the beginning of its hash; while it was judged it had another name.
    if not candidate.has("lineage"):
        return None
    sha256 = candidate.read("lineage", Lineage).adapter_sha256
    return "challenger" if sha256 and serving.endswith(f"-{sha256[:8]}") else None
