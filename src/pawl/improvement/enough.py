"""Whether enough has been learnt about an agent's answers since its last dataset to train it anew."""

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from pawl.errors import StaleWrite
from pawl.improvement.workplace import Workplace
from pawl.rollout.events import Event


class Fresh(NamedTuple):
    """What one agent could learn from that no dataset had a chance to hold."""

    agent: str
    usable: int  # prompts with an answer or a correction that its data spec would take, before near duplicates
    wanted: int  # its `data.requirements.retrain_examples`
    since: float | None  # epoch seconds it is counted from; none: from the beginning
    told: bool  # whether `pawl.feedback.enough` was sent just now


def look(place: Workplace, now: float) -> Fresh:
    """Count, and tell once where it is enough: what was told counts as used, and a retrain begins the count anew.

    The count is that of the preparation itself (`Candidates`), on the window since then with its late feedback.
    """
    from pawl.curation.candidates_duckdb import Candidates
    from pawl.lake.window_duckdb import window

    agent, spec = place.agent_name, place.agent.data
    revision, told = place.control.pointer(_mark(agent))
    since = latest(told, prepared(place.settings.datasets_dir, agent))
    with window(place.lake, agent, since, None, spec.late_days) as db:
        usable = Candidates(db, spec).steps[-1].left
    wanted = spec.requirements.retrain_examples
    if usable < wanted:
        return Fresh(agent, usable, wanted, since, told=False)
    detail = {"usable": usable, "wanted": wanted, "since": since}
    # First the event: one that nobody took is sent again by the next look.
    taken = place.events.emit(Event(name="pawl.feedback.enough", agent=agent, version="", at=now, detail=detail))
    if taken:
        with suppress(StaleWrite):  # another look told it at the same moment
            place.control.move_pointer(_mark(agent), revision, repr(now))
    return Fresh(agent, usable, wanted, since, told=taken)


def latest(told: str, prepared_at: float | None) -> float | None:
    """The later of two moments, each of which may be missing (pure); `told`: a number's text."""
    known = [moment for moment in (float(told) if told else None, prepared_at) if moment is not None]
    return max(known, default=None)


def prepared(folder: Path, agent: str) -> float | None:
    """When the agent's newest dataset version was written, epoch seconds."""
    name = re.compile(re.escape(agent) + r"-[0-9a-f]{12}\.json")
    return max((p.stat().st_mtime for p in folder.glob(f"{agent}-*.json") if name.fullmatch(p.name)), default=None)


def _mark(agent: str) -> str:
    return f"feedback told:{agent}"
