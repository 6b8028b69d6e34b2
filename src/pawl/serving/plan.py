"""What to do on one replica next, from what is needed there and what was seen there (pure).

What a replica holds is listed, needed and answered once: only then does it count as ready. What nobody needs is drained
first (no new request is sent to it), and unloaded when nothing has used it for a while. Failures are tried again after
a pause that doubles.

vLLM's front end forgets an unloaded adapter at once, its engine only when the slot is needed: such a ghost still takes
a slot. The engine drops the least recently used, so before a load that could overfill it every adapter that is needed
is asked for one token: then the oldest is a ghost.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import msgspec

from pawl.serving.desired import Need

_LONGEST_PAUSE_S = 60.0
Fault = Literal["file", "server"]


class Listed(msgspec.Struct, frozen=True):
    """A model that a replica names."""

    root: str | None  # the folder it was loaded from
    adapter: bool


class Seen(msgspec.Struct, frozen=True):
    """A replica at one look."""

    listed: Mapping[str, Listed]
    busy: frozenset[str] = frozenset()  # adapters with requests under way


class Failure(msgspec.Struct, frozen=True):
    """What went wrong with one adapter on one replica."""

    times: int
    again_at: float
    why: str
    fault: Fault  # file: the adapter itself; server: the replica


class Known(msgspec.Struct, frozen=True, kw_only=True):
    """What is remembered of one replica between looks."""

    verified: frozenset[str] = frozenset()
    listed: frozenset[str] = frozenset()  # adapters at the last look
    failures: Mapping[str, Failure] = {}
    idle_since: Mapping[str, float] = {}  # adapters that are drained, and when each was last seen in use
    ghosts: int = 0


class Action(msgspec.Struct, frozen=True):
    """One step on a replica."""

    kind: Literal["touch", "load", "verify", "drain", "unload"]
    name: str
    path: str = ""


def observed(known: Known, seen: Seen, wanted: Mapping[str, Need], now: float) -> Known:
    """What is known after a look. Names that stand for another folder than they must are failures: stale prefixes
    would be served for them."""
    there = frozenset(n for n, m in seen.listed.items() if m.adapter)
    failures = {n: f for n, f in known.failures.items() if n in wanted}
    for name, need in wanted.items():
        listed = seen.listed.get(name)
        if listed is not None and listed.root not in (None, need.path):
            why = f"{name} is loaded from {listed.root}, not from {need.path}; names are never reused"
            failures[name] = Failure(1, now + _LONGEST_PAUSE_S, why, "file")
    return Known(
        # What was not needed for a while may have lost its slot: it answers once before traffic comes to it.
        verified=frozenset(n for n in known.verified if n in seen.listed and n in wanted and n not in failures),
        listed=there,
        failures=failures,
        idle_since={
            n: now if n in seen.busy else at for n, at in known.idle_since.items() if n in there and n not in wanted
        },
        ghosts=known.ghosts + len(known.listed - there),
    )


def plan(
    known: Known, seen: Seen, wanted: Mapping[str, Need], now: float, *, slots: int, home: str, drain_s: float
) -> list[Action]:
    """The steps to take now, in order; after `observed`. Adapters loaded from outside `home` are somebody else's: they
    take slots, and stay."""
    steps = []
    for name, listed in seen.listed.items():
        if not listed.adapter or name in wanted or not (listed.root or "").startswith(home):
            continue
        since = known.idle_since.get(name)
        if since is None:
            steps.append(Action("drain", name))
        elif now - since >= drain_s:
            steps.append(Action("unload", name))
    loads, checks = [], []
    for name, need in wanted.items():
        failed = known.failures.get(name)
        if failed is not None and now < failed.again_at:
            continue
        if name not in seen.listed:
            loads.append(Action("load", name, need.path))
        if name not in known.verified:
            checks.append(Action("verify", name, need.path))
    adapters = sum(m.adapter for m in seen.listed.values())
    if checks and adapters + known.ghosts + len(loads) > slots:
        steps += [Action("touch", n) for n in wanted if n in known.verified]
    return steps + loads + checks


def done(known: Known, action: Action, now: float) -> Known:
    """What is known after a step that went well."""
    replace = msgspec.structs.replace
    match action.kind:
        case "load":
            return replace(known, listed=known.listed | {action.name})
        case "verify":
            failures = {n: f for n, f in known.failures.items() if n != action.name}
            return replace(known, verified=known.verified | {action.name}, failures=failures)
        case "drain":
            return replace(known, idle_since={**known.idle_since, action.name: now})
        case "unload":
            return replace(
                known,
                listed=known.listed - {action.name},
                verified=known.verified - {action.name},
                idle_since={n: at for n, at in known.idle_since.items() if n != action.name},
                ghosts=known.ghosts + 1,
            )
        case "touch":
            return known


def failed(known: Known, action: Action, why: str, fault: Fault, now: float) -> Known:
    """What is known after a step that failed. One that did not answer when touched is not ready until it does."""
    times = known.failures[action.name].times + 1 if action.name in known.failures else 1
    pause = min(_LONGEST_PAUSE_S, 2.0 ** (times - 1))
    failures = {**known.failures, action.name: Failure(times, now + pause, why, fault)}
    return msgspec.structs.replace(known, failures=failures, verified=known.verified - {action.name})


def ready(known: Known, seen: Seen) -> frozenset[str]:
    """The model names that requests may be sent to: what was verified and is not drained, and the base model's."""
    base = {n for n, m in seen.listed.items() if not m.adapter}
    return frozenset(base | {n for n in known.verified if n in seen.listed and n not in known.idle_since})
