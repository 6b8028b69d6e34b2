"""One quality of an answer from all that was said of it (pure). `candidates_duckdb` is the same rule for many."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from pawl.fleet.data import QualitySpec
from pawl.lake.records import Feedback


def qualities(feedback: Iterable[Feedback], weights: QualitySpec) -> dict[str, float]:
    """Interaction id -> 0..1, where anything with a weight is known.

    The latest word of each voice counts (a voice: source and key, as one kind of feedback); within grader, outcome,
    accepted, rating and review it is the mean over voices, across them the weighted mean.
    """
    latest: dict[tuple[str, str, str, str], tuple[float, str, float]] = {}
    for f in feedback:
        if f.kind == "correction" or f.score is None:
            continue
        voice = (f.interaction, f.source, f.key_id, f.kind)
        told = (f.at, f.id, min(1.0, max(0.0, f.score)))
        latest[voice] = max(latest.get(voice, told), told)
    heard: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for (interaction, source, _, kind), (_, _, score) in latest.items():
        heard[interaction][voice_of(source, kind)].append(score)
    found = {}
    for interaction, kinds in heard.items():
        sums = [(sum(v) / len(v), float(getattr(weights, name))) for name, v in kinds.items()]
        total = sum(weight for _, weight in sums)
        if total > 0:
            found[interaction] = sum(score * weight for score, weight in sums) / total
    return found


def voice_of(source: str, kind: str) -> str:
    """Which weight holds for a word: grader, review, or the kind of feedback that it is."""
    if source == "grader":
        return "grader"
    return "review" if source.startswith("review:") else kind
