"""What the control database remembers of weekly retrains: weeks that are done, and the dataset of one that is not."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterable
from pathlib import Path

import msgspec

from pawl.curation import dataset as datasets
from pawl.errors import LakeError, StaleWrite
from pawl.fleet.data import DataSpec
from pawl.improvement.steps import Window
from pawl.improvement.weeks import Stretch
from pawl.improvement.workplace import Workplace
from pawl.rollout.control import ControlStore

_KEPT = 260  # weeks: five years
_TRIES = 20


class DoneWeek(msgspec.Struct, frozen=True, kw_only=True):
    """A week that an agent has learnt from, whatever the gate said of the result."""

    since: float
    until: float
    version: str  # in the registry
    adapter: str
    decision: str
    run: str  # Prefect's
    at: float

    @property
    def stretch(self) -> Stretch:
        return Stretch(self.since, self.until)


class _Begun(msgspec.Struct, frozen=True):
    """A retrain under way."""

    key: str
    dataset: str  # its file


def done_weeks(control: ControlStore, agent: str) -> list[DoneWeek]:
    """Oldest first."""
    _, text = control.pointer(_done(agent))
    return msgspec.json.decode(text, type=list[DoneWeek]) if text else []


def record(control: ControlStore, agent: str, week: DoneWeek) -> None:
    """Remember that a week is done. The same week twice is one."""
    for attempt in range(_TRIES):
        revision, text = control.pointer(_done(agent))
        known = msgspec.json.decode(text, type=list[DoneWeek]) if text else []
        rows = [w for w in known if w.stretch != week.stretch] + [week]
        rows = sorted(rows, key=lambda w: w.since)[-_KEPT:]
        try:
            control.move_pointer(_done(agent), revision, msgspec.json.encode(rows).decode())
            return
        except StaleWrite:
            if attempt == _TRIES - 1:
                raise


def begun_dataset(place: Workplace, window: Window, spec: DataSpec, run: str) -> Path | None:
    """The dataset that a retrain which was cut off had prepared for this window; None where it is to be made.

    Feedback goes on coming in, so that preparing again would give another dataset, and training would begin anew. A
    window without bounds is known by its run. A changed spec or quarantine asks for a new dataset, and so does one
    whose records were erased since.
    """
    _, text = place.control.pointer(_begun(place.agent_name))
    if not text:
        return None
    begun = msgspec.json.decode(text, type=_Begun)
    path = place.settings.datasets_dir / begun.dataset
    if begun.key != _key(place, window, spec, run) or not path.is_file():
        return None
    try:
        made = datasets.load(path)
    except LakeError:
        return None
    held = {i for e in made.examples for i in e.interactions} | {i for p in made.pairs for i in p.interactions}
    return path if held <= _recorded(place, held) else None


def keep_dataset(place: Workplace, window: Window, spec: DataSpec, run: str, dataset: Path) -> None:
    """Remember it until `forget_dataset`. Only the run that holds the agent's retrain does so."""
    value = _Begun(_key(place, window, spec, run), dataset.name)
    revision, _ = place.control.pointer(_begun(place.agent_name))
    place.control.move_pointer(_begun(place.agent_name), revision, msgspec.json.encode(value).decode())


def forget_dataset(control: ControlStore, agent: str) -> None:
    """The retrain is done: the next one over the same window prepares anew."""
    revision, text = control.pointer(_begun(agent))
    if text:
        control.move_pointer(_begun(agent), revision, "")


def done_week(stretch: Stretch, *, version: str, adapter: str, decision: str, run: str) -> DoneWeek:
    """As of now."""
    return DoneWeek(
        since=stretch.since, until=stretch.until, version=version, adapter=adapter, decision=decision, run=run,
        at=time.time(),
    )  # fmt: skip


def _key(place: Workplace, window: Window, spec: DataSpec, run: str) -> str:
    bounded = window.since is not None and window.until is not None
    aside = sorted(q.row for q in place.control.quarantined(place.agent_name))
    parts = ["" if bounded else run, str(window.since), str(window.until), spec.model_dump_json(), *aside]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def _recorded(place: Workplace, ids: Iterable[str]) -> set[str]:
    """Of these records, those that the lake still holds."""
    asked = set(ids)
    known = set(place.lake.owners(asked))
    if left := asked - known:
        known |= left & {o.id for o in place.lake.observations(place.agent_name, None, None)}
    return known


def _done(agent: str) -> str:
    return f"weeks/{agent}"


def _begun(agent: str) -> str:
    return f"begun/{agent}"
