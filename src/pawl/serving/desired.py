"""Which adapter must be on the serving cluster, for whom, and whether it all fits (pure).

A replica keeps so many adapters in its memory beside the base model (vLLM: `--max-cpu-loras`). One more, and the least
recently used is dropped and read from disk again inside the engine's loop, where every request waits for it. vLLM
cannot be told to keep one, so what does not fit is refused here, before it starts.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import msgspec

from pawl.errors import ResourceError
from pawl.rollout.route import Arm, Route
from pawl.rollout.state import TERMINAL, Rollout


class Need(msgspec.Struct, frozen=True):
    """One adapter that must be on every replica."""

    name: str
    path: str  # its folder, absolute
    why: tuple[str, ...]  # who names it, in words
    firm: bool = True  # False: only warmed for a rollout to come; it gives way


class Lease(msgspec.Struct, frozen=True):
    """An adapter that is wanted for a while though no route names it: an evaluation's, or a rollout's that opens."""

    name: str
    path: str
    by: str
    until: float  # epoch seconds


class Waiting(msgspec.Struct, frozen=True):
    """A version that waits for its approval and whose files are on this disk already."""

    name: str
    agent: str


def needs(
    routes: Iterable[Route],
    rollouts: Iterable[Rollout],
    leases: Iterable[Lease],
    waiting: Iterable[Waiting],
    *,
    upstream: str,
    base: str,
    folder: Path,
    now: float,
) -> dict[str, Need]:
    """Adapter name -> what is needed of it, in the order of importance.

    `upstream`, `base`: the serving cluster's name in the fleet, and the base model's name there: other arms are no
    adapters of it. `folder`: where adapters lie, each under its own name.
    """
    found: dict[str, Need] = {}

    def add(name: str, path: str, why: str, *, firm: bool = True) -> None:
        known = found.get(name)
        if known is None:
            found[name] = Need(name, path, (why,), firm)
        elif why not in known.why:
            found[name] = msgspec.structs.replace(known, why=(*known.why, why), firm=known.firm or firm)

    def arm(named: Arm | None, why: str) -> None:
        if named is not None and named.kind == "local" and named.upstream == upstream and named.model != base:
            add(named.model, str(folder / named.model), why)

    for route in routes:
        arm(route.champion, f"champion of {route.agent}")
        arm(route.challenger, f"challenger of {route.agent} at {route.percent} %")
        for shadow in route.shadows:
            arm(shadow, f"shadow of {route.agent}")
    for rollout in rollouts:
        if rollout.stage not in TERMINAL:
            arm(rollout.champion, f"champion to go back to in {rollout.id}")
            arm(rollout.challenger, f"challenger in {rollout.id}")
            for shadow in rollout.keep_shadow:
                arm(shadow, f"shadow of {rollout.agent}")
    for lease in leases:
        if lease.until > now:
            add(lease.name, lease.path, lease.by)
    for version in waiting:
        add(version.name, str(folder / version.name), f"next of {version.agent}", firm=False)
    return found


def fitting(wanted: Mapping[str, Need], slots: int) -> dict[str, Need]:
    """What is kept on a replica of so many slots: all that is firm, even where that is too much (it serves, slowly),
    and of the rest as much as there is room for."""
    firm = {n: w for n, w in wanted.items() if w.firm}
    room = max(0, slots - len(firm))
    rest = [n for n, w in wanted.items() if not w.firm][:room]
    return {n: w for n, w in wanted.items() if n in firm or n in rest}


def demand_room(wanted: Mapping[str, Need], newcomer: str, slots: int) -> None:
    """ResourceError where `newcomer` does not fit beside all else that is firm; the text says what could go."""
    others = [w for n, w in wanted.items() if w.firm and n != newcomer]
    if len(others) + 1 <= slots:
        return
    named = "\n".join(f"  - {w.name}: {', '.join(w.why)}" for w in others)
    raise ResourceError(
        f"{newcomer} does not fit on the serving cluster: a replica keeps {slots} adapters, and {len(others)} are in "
        f"use:\n{named}\nLet a rollout end or abort it (`pawl rollout abort`), serve a champion merged, or start the "
        "replicas with more (vLLM's --max-cpu-loras) and say so in PAWL_VLLM_CPU_LORAS."
    )
