"""One short, idempotent tick of every agent's rollout: open, move on, settle."""

from __future__ import annotations

from prefect import flow, runtime

from tasks.approval import tend_waiting
from tasks.attempts import Attempts
from tasks.promotion import agents_of_fleet, name_by, open_approved, settle, tick, watch_aliases
from tasks.values import Moved


def _name() -> str:
    return f"roll out {runtime.flow_run.parameters.get('agent') or 'all agents'}"


# A run that hangs would keep the minute's runs away for ever. Within a step this ends the step alone, which is why each
# has a time of its own.
@flow(flow_run_name=_name, timeout_seconds=900)
def roll_out(agent: str | None = None) -> tuple[Moved, ...]:
    """Opens what is approved, advances by evidence, moves `@champion` on success, looks after what waits.

    Runs every minute, at once when an approval was given, and whenever somebody asks. Holding and rolling back do not
    wait for it. Every step of every agent is tried whatever became of the others.

    Raises PawlError at the end where a step failed, with every reason.

    Args:
        agent: its name in fleet.yaml; none: all of them
    """
    attempt, moved = Attempts(), list[Moved]()
    for name in (agent,) if agent else agents_of_fleet():
        step = attempt(open_approved, name) or attempt(tick, name)
        moved += [step] if step else []
        moved += attempt(settle, name) or ()
        moved += attempt(watch_aliases, name) or ()
        attempt(tend_waiting, name)
    name_by(tuple(moved))
    attempt.finish()
    return tuple(moved)
