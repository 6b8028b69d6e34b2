"""Interactions and feedback -> a dataset version, with what each step left (pure)."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Iterable

import msgspec

from pawl.curation.dataset import DatasetVersion, Example
from pawl.errors import NotEnoughData, SourceError
from pawl.fleet.spec import AgentSpec
from pawl.lake.records import Feedback, Interaction
from pawl.qe.functional_negative import parse_task


def prepare(
    agent: AgentSpec,
    interactions: list[Interaction],
    feedback: list[Feedback],
    replay: list[Example],
    held_out: Callable[[str], bool],
    min_quality: float = 0.99,
) -> DatasetVersion:
    """Build the dataset version that the next challenger learns from.

    Candidates are corrections by people, and answers of cloud upstreams (in shadow or to a client) whose outcome
    checks they passed. A correction outranks every other answer to the same operation. Quality is the mean
    outcome score, 0..1. Sources that are held out for evaluation never train. NotEnoughData says what is missing.
    """
    spec = agent.training
    counts = {"interactions": len(interactions)}
    found = _candidates(interactions, feedback)
    counts["answers with an outcome or a correction"] = len(found)
    found = [c for c in found if c.quality >= min_quality]
    counts["of sufficient quality"] = len(found)
    found = [c for c in found if not held_out(c.source)]
    counts["of training sources"] = len(found)
    found = _best_of_each_prompt(found)
    counts["one an operation"] = len(found)
    found = _spread(found, spec.max_examples)
    counts["capped, spread over sources"] = len(found)
    if len(found) < spec.min_examples:
        raise NotEnoughData(
            f"{len(found)} new examples for {agent.name}, its spec demands {spec.min_examples} "
            f"({'; '.join(f'{k}: {v}' for k, v in counts.items())}). "
            "Collect for longer, or lower training.min_examples in fleet.yaml"
        )
    allowed = [e for e in replay if not held_out(e.source)]
    older = _replayed(allowed, {c.id for c in found}, round(spec.replay_share * len(found)), spec.seed)
    examples = [*found, *older]
    counts["with replay"] = len(examples)
    random.Random(spec.seed).shuffle(examples)
    sources = tuple(sorted({e.source for e in examples}))
    return DatasetVersion(agent=agent.name, examples=tuple(examples), counts=counts, sources=sources)


def outcomes(feedback: Iterable[Feedback]) -> dict[str, float]:
    """Mean outcome score of each interaction: the latest of each reporter counts, then their mean."""
    latest: dict[tuple[str, str], Feedback] = {}
    for f in sorted(feedback, key=lambda f: (f.at, f.id)):
        if f.kind == "outcome" and f.score is not None:
            latest[(f.interaction, f.source)] = f
    scores: dict[str, list[float]] = {}
    for (interaction, _), f in latest.items():
        scores.setdefault(interaction, []).append(f.score or 0.0)
    return {k: sum(v) / len(v) for k, v in scores.items()}


def _candidates(interactions: list[Interaction], feedback: list[Feedback]) -> list[Example]:
    scores = outcomes(feedback)
    corrections = {
        f.interaction: f for f in sorted(feedback, key=lambda f: f.at) if f.kind == "correction" and f.detail
    }
    found = []
    for i in sorted(interactions, key=lambda i: (i.at, i.id)):
        correction = corrections.get(i.id)
        if correction is not None and isinstance(text := correction.detail.get("completion"), str) and text:
            found.append(_example(i, text, 1.0 if correction.score is None else correction.score, first=True))
        usable = i.arm_kind == "cloud" and i.status == 200 and not i.broken and i.finish_reason in (None, "stop")
        if usable and i.completion and i.id in scores:
            found.append(_example(i, i.completion, scores[i.id], first=False))
    return found


def _example(i: Interaction, completion: str, quality: float, *, first: bool) -> Example:
    prompt = hashlib.sha256(msgspec.json.encode(i.messages)).hexdigest()[:24]
    seen = (i.id,) if first or i.shadow_of is None else (i.id, i.shadow_of)
    source = _source(i)
    name = f"{prompt}{'-corrected' if first else ''}"
    return Example(
        id=name, messages=i.messages, completion=completion, quality=quality, source=source, interactions=seen
    )


def _source(i: Interaction) -> str:
    """The source that the prompt itself names; what a client says of it counts only where the prompt names none.

    A client that sends no metadata, or a wrong one, must not carry held-out tasks into training.
    """
    try:
        return parse_task(i.messages).source
    except SourceError:
        return str(i.task.get("source") or "unknown")


def _best_of_each_prompt(found: list[Example]) -> list[Example]:
    """One answer a prompt: corrections first, then quality, then the newest."""
    best: dict[str, tuple[tuple[bool, float, int], Example]] = {}
    for n, e in enumerate(found):
        rank = (e.id.endswith("-corrected"), e.quality, n)
        prompt = e.id.removesuffix("-corrected")
        if prompt not in best or rank > best[prompt][0]:
            best[prompt] = (rank, e)
    return [e for _, e in sorted(best.values(), key=lambda kept: kept[0][2])]


def _spread(found: list[Example], most: int) -> list[Example]:
    """At most that many, newest first, taken in turns from the sources so that none dominates."""
    queues: dict[str, list[Example]] = {}
    for e in found:
        queues.setdefault(e.source, []).append(e)
    kept: list[Example] = []
    # The source heard of last comes first: alphabetical turns would never reach the end of the alphabet.
    turns = list(dict.fromkeys(e.source for e in reversed(found)))
    while len(kept) < most and turns:
        kept += [queues[source].pop() for source in turns[: most - len(kept)]]
        turns = [source for source in turns if queues[source]]
    return kept


def _replayed(replay: list[Example], new: set[str], amount: int, seed: int) -> list[Example]:
    known = {n.removesuffix("-corrected") for n in new}
    older = sorted((e for e in replay if e.id.removesuffix("-corrected") not in known), key=lambda e: e.id)
    picked = random.Random(seed).sample(older, min(amount, len(older)))
    return [msgspec.structs.replace(e, replayed=True) for e in picked]
