"""A window's candidates -> a dataset version, with what each step left and why it dropped the rest.

The steps, in order: one answer a prompt (`candidates_duckdb`), no near-duplicates and nothing near what is held out,
nothing that means the same (`pool`), selection by spread and value (`select`), scrubbing of what was selected, verified
variants (`augment`), replay of older examples.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import msgspec

from pawl.curation.augment import augment
from pawl.curation.candidates_duckdb import Candidates
from pawl.curation.dataset import DatasetVersion, Example, Pair, Split, Step
from pawl.curation.focus import Focus, check, rooms
from pawl.curation.pool import (
    Entry,
    HeldOut,
    Pool,
    gather,
    id_of,
    near_held_out,
    source_of,
    without_near_duplicates,
    without_same_meaning,
)
from pawl.curation.readiness import Accuracy, Card, Item, card
from pawl.curation.select import Pick, age_weight, select
from pawl.curation.texts import in_turn, texts_of, with_texts
from pawl.errors import NotEnoughData
from pawl.fleet.data import DataSpec
from pawl.qe.task import Task
from pawl.scrubbing.scrub import Scrubbed
from pawl.validation.rules import LONGEST_COMPLETION, LONGEST_PROMPT

if TYPE_CHECKING:
    from pawl.curation.topics_sklearn import Vectors

LEAST = 2  # characters of an answer
POOLED = 3  # times the room: so many candidates are looked at for what they mean
Tell = Callable[[str, int, int], None]  # step, done, total


@dataclass(frozen=True)
class Surroundings:
    """What a preparation is told beside the window itself."""

    task: Task
    side: Callable[[str], Split]
    scrub: Callable[[Iterable[Sequence[str]]], Iterator[Scrubbed]]  # the texts of one example a time, in order
    now: float  # epoch seconds; the card alone goes by it
    held_out: Sequence[HeldOut] = ()
    reserved: frozenset[str] = frozenset()  # sources of the regression suite
    replay: Sequence[Example] = ()
    accuracy: Accuracy | None = None
    licence: str = ""
    embed: Callable[[list[str]], Vectors] | None = None
    focus: Sequence[Focus] = ()  # classes that what serves now fails in
    classes: Mapping[str, str] = field(default_factory=dict)  # content of the task's own training items -> class
    tell: Tell = field(default=lambda step, done, total: None)


def prepare(agent: str, spec: DataSpec, candidates: Candidates, around: Surroundings) -> DatasetVersion:
    """Build the dataset version that the next challenger learns from.

    The same lake, spec and surroundings give the same fingerprint, whenever it is: ages count from the newest
    candidate. NotEnoughData says what is missing.
    """
    pool = gather(
        candidates, around.task, around.side, around.reserved, lambda done, total: around.tell("prompts", done, total)
    )
    around.tell("duplicates", 0, 1)
    pool = without_near_duplicates(pool, around.held_out, spec.near_duplicate)
    newest = max((e.candidate.at for e in pool.entries), default=0.0)
    pool = _capped(pool, spec, around, newest)
    pool, clusters = without_same_meaning(pool, around.held_out, spec, around.embed)
    around.tell("selection", 0, 1)
    chosen, steps = _selected(pool, candidates, clusters, spec, around, newest)
    steps = [*candidates.steps, *steps]
    formed = [e for e in chosen if _in_form(e, around.task)]
    why = f"not of the agent's form, or outside {LEAST} to {LONGEST_COMPLETION:,} characters"
    steps.append(Step("in form", len(formed), len(chosen) - len(formed), why))
    verified, found = _scrubbed(formed, spec, around)
    why = "the oracle refuses the answer, or its scrubbed form"
    steps.append(Step("scrubbed and verified", len(verified), len(formed) - len(verified), why))
    # Without names and addresses two prompts can be one, and a held-out answer can stand nearer than its task.
    train = [e for e in verified if e.split == "train"]
    held = sorted((e for e in verified if e.split != "train"), key=lambda e: (e.split, e.id))
    train = [e for e, bad in zip(train, _near(train, held, spec, around), strict=True) if not bad]
    examples = [*train, *held]
    why = "scrubbed, it is nearly the same as one that is held out"
    steps.append(Step("distinct once scrubbed", len(examples), len(verified) - len(examples), why))
    new = len(train)
    if new < spec.min_examples:
        raise NotEnoughData(
            f"{new} new training examples for {agent}, its spec demands {spec.min_examples} "
            f"({'; '.join(f'{s.name}: {s.left}' for s in steps)}). "
            "Collect for longer, or lower data.min_examples in fleet.yaml"
        )
    more, tries = augment(train, spec.augment, around.task, spec.seed, spec.min_quality)
    close = _near(more, held, spec, around)
    variants = [e for e, bad in zip(more, close, strict=True) if not bad]
    if spec.augment:
        tried = sum(t["tried"] for t in tries.values())
        why = "refused by the oracle, or nearly the same as one that is held out"
        steps.append(Step("with variants", len(examples) + len(variants), tried - len(variants), why))
    doubtful = candidates.doubtful({i for e in around.replay for i in e.interactions})
    older = _replayed(around, spec, train, held, doubtful, newest)
    if around.replay:
        steps.append(Step("with replay", len(examples) + len(variants) + len(older), 0, "older examples come back"))
    learnt = [*train, *variants, *older]
    random.Random(spec.seed).shuffle(learnt)
    pairs, in_pairs = _pairs(candidates, spec, around, held)
    return DatasetVersion(
        agent=agent,
        examples=(*learnt, *held),
        sources=tuple(sorted({e.source for e in learnt} | {p.source for p in pairs if p.split == "train"})),
        steps=tuple(steps),
        pairs=tuple(pairs),
        since=min((e.at for e in train), default=None),
        until=max((e.at for e in train), default=None),
        licence=around.licence,
        scrubbed=dict(sorted((found + in_pairs).items())),
        spec=spec.model_dump(mode="json"),
        card=_card(learnt, clusters, spec, around),
        focus=tuple(around.focus) if spec.failing_share else (),
    )


def contaminated(dataset: DatasetVersion, held_out: Sequence[HeldOut], task: Task, threshold: float) -> set[str]:
    """Ids of training examples and pairs that nearly repeat a held-out task or example; there should be none."""
    items: list[Example | Pair] = [*dataset.train, *(p for p in dataset.pairs if p.split == "train")]
    others = [h.content for h in held_out]
    others += [task.content_of(e.messages) for e in dataset.examples if e.split != "train"]
    found = near_held_out([task.content_of(e.messages) for e in items], others, threshold)
    return {e.id for e, bad in zip(items, found, strict=True) if bad}


def _capped(pool: Pool, spec: DataSpec, around: Surroundings, newest: float) -> Pool:
    """At most POOLED times the room, by value and spread over sources: meaning costs more than digests."""
    room = POOLED * spec.max_examples
    if len(pool.entries) <= room:
        return pool
    picks = [_pick(e, "", 0, spec, newest, around.classes.get(e.content, "")) for e in pool.entries]
    rows = set(select(picks, room, spec).rows)
    # Beside them those that the failing classes' room is for. Only the task's own items have a class before answers
    # are read.
    for name, amount in rooms(around.focus, round(spec.failing_share * spec.max_examples)).items():
        mine = [n for n, p in enumerate(picks) if p.topic == name and pool.entries[n].split == "train"]
        rows.update(mine[k] for k in select([picks[n] for n in mine], amount, spec).rows)
    kept = [pool.entries[n] for n in sorted(rows)]
    gone = len(pool.entries) - len(kept)
    return Pool(kept, [*pool.steps, Step("looked at closely", len(kept), gone, f"beyond {room} there is no room")])


def _pick(e: Entry, scenario: str, cluster: int, spec: DataSpec, newest: float, topic: str) -> Pick:
    c = e.candidate
    value = c.quality * age_weight(c.at, newest, spec.half_life_days)
    return Pick(e.source, scenario, cluster, value, c.at, c.hard, topic)


def _selected(
    pool: Pool,
    candidates: Candidates,
    clusters: Mapping[str, int],
    spec: DataSpec,
    around: Surroundings,
    newest: float,
) -> tuple[list[Example], list[Step]]:
    """Examples with their texts, each split at most its share of the room."""
    texts = candidates.texts([e.candidate for e in pool.entries])
    made = [_example(e, msgspec.json.decode(t.messages), t.completion, around.task, spec, newest)
            for e, t in zip(pool.entries, texts, strict=True)]  # fmt: skip
    train_percent = 100 - spec.validation_percent - spec.test_percent
    rooms: dict[Split, int] = {
        "train": spec.max_examples,
        "validation": -(-spec.max_examples * spec.validation_percent // train_percent),
        "test": -(-spec.max_examples * spec.test_percent // train_percent),
    }
    rows: list[int] = []
    capped = unneeded = 0
    for split, room in rooms.items():
        mine = [n for n, e in enumerate(pool.entries) if e.split == split]
        picks = [_pick(pool.entries[n], made[n].scenario, clusters.get(id_of(pool.entries[n]), 0), spec, newest,
                       _topic(made[n], around)) for n in mine]  # fmt: skip
        # What is held out stays as it comes.
        found = select(picks, room, spec, around.focus if split == "train" else ())
        rows += [mine[k] for k in found.rows]
        capped, unneeded = capped + found.capped, unneeded + found.unneeded
    spread = len(pool.entries) - capped
    steps = [
        *pool.steps,
        Step("spread over sources and classes", spread, capped, "a source or a scenario class had its share"),
        Step("selected", spread - unneeded, unneeded, f"room for {spec.max_examples} training examples"),
    ]
    return [made[n] for n in rows], steps


def _example(e: Entry, messages: list[dict[str, Any]], completion: str, task: Task, spec: DataSpec,
             newest: float) -> Example:  # fmt: skip
    c = e.candidate
    seen = (c.id,) if c.kind != "answer" or c.shadow_of is None else (c.id, c.shadow_of)
    return Example(
        id=c.prompt if c.kind == "answer" else f"{c.prompt}-{c.kind}",
        messages=messages,
        completion=completion,
        quality=c.quality,
        source=e.source,
        interactions=seen,
        split=e.split,
        kind=c.kind,
        scenario=task.scenario_of(messages, completion),
        weight=age_weight(c.at, newest, spec.half_life_days),
        at=c.at,
        # A shadow is recorded with the terms of the request that it shadows.
        privacy=c.privacy,
        consent="granted" if c.granted else "",
    )


def _topic(e: Example, around: Surroundings) -> str:
    """The class that a comparison would count it in: of the task's own item, where it is one; else of the answer."""
    known = around.classes.get(around.task.content_of(e.messages)) if around.classes else None
    return known or e.scenario


def _scrubbed(examples: Sequence[Example], spec: DataSpec, around: Surroundings) -> tuple[list[Example], Counter[str]]:
    """Without personal data and secrets; what the oracle refuses as it is then is dropped."""
    kept: list[Example] = []
    found: Counter[str] = Counter()
    texts = ([*texts_of(e.messages), e.completion] for e in examples)
    for n, (e, clean) in enumerate(zip(examples, around.scrub(texts), strict=True), start=1):
        if n % 500 == 0 or n == len(examples):
            around.tell("scrubbing", n, len(examples))
        if clean.found:
            found.update(clean.found)
            *prompt, completion = clean.texts
            messages = with_texts(e.messages, in_turn(prompt))
            e = msgspec.structs.replace(e, messages=messages, completion=completion)
        if _accepted(e.messages, e.completion, spec, around):
            kept.append(e)
    return kept, found


def _accepted(messages: list[dict[str, Any]], completion: str, spec: DataSpec, around: Surroundings) -> bool:
    """The oracle has nothing against it, as far as it can grade it and is asked to."""
    grade = around.task.grade(messages, completion) if spec.verify else None
    return grade is None or grade.score >= spec.min_quality


def _in_form(e: Example, task: Task) -> bool:
    """What the suite of the finished dataset demands of each: one that does not fit must not stop the others."""
    prompt = sum(len(t) for t in texts_of(e.messages))
    fits = 0 < prompt <= LONGEST_PROMPT and LEAST <= len(e.completion) <= LONGEST_COMPLETION
    return fits and task.conforms(e.completion)


def _near(
    more: Sequence[Example] | Sequence[Pair], held: Sequence[Example], spec: DataSpec, around: Surroundings
) -> list[bool]:
    """Which of these nearly repeat what is held out."""
    content = around.task.content_of
    others = [h.content for h in around.held_out] + [content(e.messages) for e in held]
    return near_held_out([content(e.messages) for e in more], others, spec.near_duplicate)


def _replayed(
    around: Surroundings,
    spec: DataSpec,
    new: Sequence[Example],
    held: Sequence[Example],
    doubtful: set[str],
    newest: float,
) -> list[Example]:
    """Older examples, as many as the spec's share of the new ones; none that is held out, repeated or doubtful now."""
    known = {prompt_of(e) for e in new}
    allowed = [
        e
        for e in around.replay
        if e.split == "train"
        and around.side(e.source) == "train"
        and e.source not in around.reserved
        and prompt_of(e) not in known
        and doubtful.isdisjoint(e.interactions)
    ]
    close = _near(allowed, [*held, *new], spec, around)
    older = sorted((e for e, bad in zip(allowed, close, strict=True) if not bad), key=lambda e: e.id)
    amount = min(round(spec.replay_share * len(new)), len(older))
    picked = random.Random(spec.seed).sample(older, amount)
    weigh = [age_weight(e.at, newest, spec.half_life_days) for e in picked]
    return [msgspec.structs.replace(e, replayed=True, weight=w) for e, w in zip(picked, weigh, strict=True)]


def prompt_of(example: Example) -> str:
    """The digest of an example's prompt, whatever its answer is."""
    return example.id.split("-", 1)[0]


def _pairs(
    candidates: Candidates, spec: DataSpec, around: Surroundings, held: Sequence[Example]
) -> tuple[list[Pair], Counter[str]]:
    """Preference pairs of every split, scrubbed, the chosen answer accepted by the oracle.

    None that trains is near what is held out.
    """
    rows = candidates.pairs(spec.max_examples)
    told = [msgspec.json.decode(row["messages"]) for row in rows]
    made = []
    for row, messages in zip(rows, told, strict=True):
        source = source_of(around.task, messages, row["named_source"], row["prompt"])
        if source in around.reserved:
            continue
        ids = tuple(dict.fromkeys((row["chosen_id"], row["rejected_id"])))
        made.append(
            Pair(
                id=f"{row['prompt']}-{row['origin']}",
                messages=messages,
                chosen=row["chosen"],
                rejected=row["rejected"],
                gap=row["gap"],
                origin=row["origin"],
                source=source,
                split=around.side(source),
                interactions=ids,
                privacy=row["privacy"],
                consent="granted" if row["granted"] else "",
            )
        )
    found: Counter[str] = Counter()
    clean = []
    texts = ([*texts_of(p.messages), p.chosen, p.rejected] for p in made)
    for p, scrubbed in zip(made, around.scrub(texts), strict=True):
        *prompt, chosen, rejected = scrubbed.texts
        messages = with_texts(p.messages, in_turn(prompt))
        if chosen != rejected and _accepted(messages, chosen, spec, around):
            found.update(scrubbed.found)
            clean.append(msgspec.structs.replace(p, messages=messages, chosen=chosen, rejected=rejected))
    close = _near(clean, held, spec, around)
    return [p for p, bad in zip(clean, close, strict=True) if not (bad and p.split == "train")], found


def _card(learnt: Sequence[Example], clusters: Mapping[str, int], spec: DataSpec, around: Surroundings) -> Card:
    """Replayed and varied examples count as volume, new ones alone for a retrain; clusters are known of new ones."""
    items = [
        Item(
            e.source,
            e.scenario,
            clusters.get(f"{e.kind}:{e.interactions[0]}", -1) if e.interactions else -1,
            e.at,
            not e.replayed and e.kind != "variant",
        )
        for e in learnt
    ]
    made = card(items, spec.requirements, around.now, around.accuracy)
    return Card((*made.checks, *check(around.focus, (_topic(e, around) for e in learnt))))
