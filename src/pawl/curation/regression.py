"""The regression suite: live failures that stay tests for good, and never train (pure, but for its file)."""

from __future__ import annotations

import fcntl
import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from pawl.curation.dataset import Split
from pawl.curation.files import write_whole
from pawl.curation.pool import source_of
from pawl.errors import LakeError
from pawl.qe.task import Task

RESERVED_SHARE = 0.05  # of the training sources that have failed may be taken out of training for the suite


class Item(msgspec.Struct, frozen=True, kw_only=True):
    """A prompt that a local arm got wrong in production."""

    id: str  # digest of the prompt
    messages: list[dict[str, Any]]
    source: str
    cluster: str  # how it failed
    content: str  # what near-duplicates are told by
    interaction: str  # where it was seen first
    added_at: float  # epoch seconds
    must_pass: bool = False  # no challenger that fails it is promoted


class Suite(msgspec.Struct, frozen=True, kw_only=True):
    """One agent's suite. Items stay; sources in it never train again."""

    v: int = 1
    agent: str
    items: tuple[Item, ...] = ()
    reserved: tuple[str, ...] = ()  # sources taken out of training for it


class Failure(msgspec.Struct, frozen=True):
    """An answer of a local arm that was wrong."""

    interaction: str
    prompt: str
    source: str
    at: float
    messages: list[dict[str, Any]]
    completion: str


def failures(rows: Iterable[tuple[str, str, str, float, str, str]], task: Task) -> list[Failure]:
    """From `Candidates.failures`; the source that the prompt names goes before the one that a client named."""
    found = []
    for interaction, prompt, named, at, messages, completion in rows:
        told = msgspec.json.decode(messages)
        found.append(Failure(interaction, prompt, source_of(task, told, named, prompt), at, told, completion))
    return found


def grown(
    suite: Suite,
    seen: Sequence[Failure],
    task: Task,
    side: Callable[[str], Split],
    *,
    most: int,
    now: float,
    trained: frozenset[str] = frozenset(),
) -> Suite:
    """The suite with new failures up to `most` items; what is in it stays as it is.

    Sources that are held out already come first. Where they have no failures, a few training sources that no model has
    learnt from (`trained` holds the others) are reserved: from now on they train nothing. Room is dealt in turns over
    how answers failed, within that over sources, so that one frequent failure does not fill the suite.
    """
    room = most - len(suite.items)
    if room <= 0:
        return suite
    known = {i.id for i in suite.items}
    fresh = [f for f in seen if f.prompt not in known]
    held = [f for f in fresh if side(f.source) != "train" or f.source in suite.reserved]
    free = [f for f in fresh if side(f.source) == "train" and f.source not in {*suite.reserved, *trained}]
    picked = _dealt(held, room, task)
    reserved: list[str] = []
    if len(picked) < room:
        # By hash and not by number of failures: a source that fails often has the most to teach.
        sources = sorted({f.source for f in free}, key=_order)
        already = len(set(suite.reserved))
        allowed = max(0, int(RESERVED_SHARE * (len(sources) + already)) - already)
        reserved = sources[:allowed]
        picked += _dealt([f for f in free if f.source in set(reserved)], room - len(picked), task)
    used = {f.source for f, _ in picked}
    items = tuple(
        Item(
            id=f.prompt,
            messages=f.messages,
            source=f.source,
            cluster=cluster,
            content=task.content_of(f.messages),
            interaction=f.interaction,
            added_at=now,
        )
        for f, cluster in picked
    )
    return msgspec.structs.replace(
        suite,
        items=(*suite.items, *items),
        reserved=tuple(sorted({*suite.reserved, *(s for s in reserved if s in used)})),
    )


def _dealt(found: Sequence[Failure], room: int, task: Task) -> list[tuple[Failure, str]]:
    strata: dict[str, dict[str, list[Failure]]] = defaultdict(lambda: defaultdict(list))
    for f in sorted(found, key=lambda f: (f.at, f.interaction)):
        strata[task.cluster_key(f.messages, f.completion)][f.source].append(f)
    picked: list[tuple[Failure, str]] = []
    while len(picked) < room and strata:
        for cluster in sorted(strata):
            if len(picked) == room:
                break
            sources = strata[cluster]
            name = next(iter(sources))
            picked.append((sources[name].pop(), cluster))
            queue = sources.pop(name)
            if queue:
                sources[name] = queue  # to the end of the turns
            if not sources:
                del strata[cluster]
    return picked


def _order(source: str) -> bytes:
    return hashlib.blake2b(f"regression\0{source}".encode(errors="surrogatepass"), digest_size=8).digest()


def must_pass(suite: Suite, named: Sequence[str] = ()) -> tuple[str, ...]:
    """Ids of the items that may never fail: those marked in the suite, and those whose id begins with one of `named`.

    A name that no item has is kept as it is: what must pass and is not there must not be forgotten.
    """
    found = {i.id for i in suite.items if i.must_pass}
    for name in named:
        found |= {i.id for i in suite.items if i.id.startswith(name)} or {name}
    return tuple(sorted(found))


def marked(suite: Suite, names: Sequence[str], must: bool) -> Suite:
    """The suite with the named items (ids, or their beginnings) marked or not. LakeError where a name is no item's, or
    is that of several."""
    chosen = set()
    for name in names:
        fitting = [i.id for i in suite.items if i.id.startswith(name)]
        if len(fitting) != 1:
            problem = f"is the beginning of {len(fitting)} items" if fitting else "is in it nowhere"
            raise LakeError(f"{name!r} {problem}; `pawl regression list {suite.agent}` shows the suite")
        chosen.add(fitting[0])
    items = tuple(msgspec.structs.replace(i, must_pass=must) if i.id in chosen else i for i in suite.items)
    return msgspec.structs.replace(suite, items=items)


def load(folder: Path, agent: str) -> Suite:
    """An agent's suite; an empty one before the first. LakeError where it cannot be read."""
    path = folder / f"{agent}.json"
    try:
        return msgspec.json.decode(path.read_bytes(), type=Suite)
    except FileNotFoundError:
        return Suite(agent=agent)
    except (OSError, msgspec.MsgspecError) as e:
        raise LakeError(f"the regression suite {path} cannot be read: {e}; restore it from a copy") from e


def change(folder: Path, agent: str, into: Callable[[Suite], Suite]) -> Suite:
    """Replace an agent's suite by what `into` makes of it, nobody else in between. LakeError where the disk refuses."""
    path = folder / f"{agent}.json"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / "lock").open("ab") as handle:
            fcntl.flock(handle, fcntl.LOCK_EX)
            before = load(folder, agent)
            made = into(before)
            if made != before:
                write_whole(path, msgspec.json.format(msgspec.json.encode(made), indent=1))
            return made
    except OSError as e:
        raise LakeError(f"the regression suite cannot be written to {path}: {e.strerror or e}") from e
