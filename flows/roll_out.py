"""One short, idempotent tick of every agent's rollout: open, move on, settle."""

from __future__ import annotations

from prefect import flow

from tasks.approval import tend_waiting
from tasks.promotion import agents_of_fleet, open_approved, settle, tick, watch_aliases
from tasks.values import Moved


@flow
def roll_out(agent: str | None = None) -> tuple[Moved, ...]:
    """Opens what is approved, advances by evidence, moves `@champion` on success, looks after what waits.

    Runs every minute, at once when an approval was given, and whenever somebody asks. Holding and rolling back do not
    wait for it.
    """
    moved: list[Moved] = []
    for name in (agent,) if agent else agents_of_fleet():
        step = open_approved(name) or tick(name)
        moved += [step] if step else []
        moved += settle(name)
        moved += watch_aliases(name)
        tend_waiting(name)
    return tuple(moved)
