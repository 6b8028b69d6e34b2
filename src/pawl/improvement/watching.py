"""One look for drift of an agent's traffic: read what is new, go on with the test, record it, tell a new drift once."""

from __future__ import annotations

import fcntl
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from pawl import bootstrap
from pawl.errors import LakeError
from pawl.improvement.workplace import Workplace
from pawl.monitoring import drift_record as records
from pawl.monitoring.drift_record import DriftRecord, KindNow
from pawl.rollout.events import Event

if TYPE_CHECKING:
    from pawl.monitoring.drift_values import Session
    from pawl.monitoring.drift_watch import Watch

QUARTER_S = 900.0
SETTLED_S = 900.0  # by then a request that began in a quarter of an hour has been answered and journalled


def look(place: Workplace, now: float) -> DriftRecord:
    """Read what settled since the last look, record where each kind stands, and tell a drift that is new.

    A look that was cut off is done again and comes to the same. LakeError where the lake cannot be read.
    """
    with _alone(place):
        watch = advanced(place, now)
        _save(_file(place), watch)
        record = records.write(place.control, place.agent_name, lambda old: recorded(watch, now, old))
    # Kinds of one change are shown hours apart. People are told of each; the first is reason enough to retrain.
    untold = tuple(k for k in record.drifting if k not in record.told)
    if untold and place.events.emit(_event(record, untold, now)):
        record = records.write(place.control, place.agent_name, lambda old: with_told(old or record, untold))
    return record


class Preview(NamedTuple):
    """What a look would find. `watched`: whether anybody has looked before, so that something can be new."""

    watch: Watch
    record: DriftRecord
    watched: bool


def preview(place: Workplace, now: float) -> Preview:
    """As `look`, but nothing is kept, recorded or told.

    Where another machine keeps the watch, the record is the one that its last look wrote.
    """
    old, here = records.read(place.control, place.agent_name), load(place) is not None
    watch = advanced(place, now)
    if not here and old is not None and old.champion == watch.champion:
        return Preview(watch, old, True)
    return Preview(watch, recorded(watch, now, old), here)


def advanced(place: Workplace, now: float) -> Watch:
    """The watch as it was left, with all sessions since that have settled.

    Another champion than last time is watched from its beginning: it answers in its own way, and it was made for the
    requests of the days before, as far as they came after the last change.
    """
    from pawl.monitoring import drift_watch as watches
    from pawl.monitoring.drift_sessions_duckdb import sessions
    from pawl.qe.tasks import task_of

    spec, task = place.agent.drift, task_of(place.agent.task)
    champion = bootstrap.current_route(place.fleet, place.control, place.agent).champion.name
    watch = load(place)
    if watch is None or (watch.champion, watch.alpha) != (champion, spec.alpha):
        reference_s = spec.reference_days * 86_400
        watch = watches.begin(
            place.agent_name,
            champion,
            now,
            alpha=spec.alpha,
            reference_s=reference_s,
            quarter_s=QUARTER_S,
            changed=watch.newest_change if watch is not None else None,
        )
    patience = spec.feedback_hours * 3600
    draw = partial(
        sessions, place.lake, place.agent_name, of_client=spec.sessions_per_client, most=spec.sessions_per_quarter
    )
    until = settled(now)
    for seen in _batches(draw(watch.answers_through, until)):
        watches.take(watch, seen, task, late=False)
    watch.answers_through = max(until, watch.answers_through)
    until = settled(now - patience)
    for seen in _batches(draw(watch.feedback_through, until, feedback_s=patience)):
        watches.take(watch, seen, task, late=True)
    watch.feedback_through = max(until, watch.feedback_through)
    watches.looked(watch, now)
    return watch


def settled(now: float) -> float:
    """Sessions that began before this moment are all in the journal, with their first quarter of an hour."""
    return (now - SETTLED_S - QUARTER_S) // QUARTER_S * QUARTER_S


def recorded(watch: Watch, now: float, old: DriftRecord | None) -> DriftRecord:
    """What others are told of a watch (pure). What was told of the same champion and goes on is not told again."""
    kinds = {
        str(kind): KindNow(
            evidence=round(test.wealth, 6),
            peak=round(test.peak, 6),
            sessions=test.ranked,
            bets=test.bets,
            before=watch.means[kind].before,
            now=watch.means[kind].now,
            since=watch.found.get(kind),
        )
        for kind, test in watch.tests.items()
    }
    same = old is not None and old.champion == watch.champion
    told = tuple(k for k in old.told if k in watch.found) if old is not None and same else ()
    return DriftRecord(
        agent=watch.agent,
        champion=watch.champion,
        anchor=watch.anchor,
        compared_since=watch.compared_since,
        looked_at=now,
        through=watch.answers_through,
        threshold=watch.threshold,
        kinds=kinds,
        told=told,
    )


def with_told(record: DriftRecord, kinds: tuple[str, ...]) -> DriftRecord:
    """The record, with the fact that those kinds were told of (pure)."""
    return msgspec.structs.replace(record, told=tuple(sorted({*record.told, *kinds} & set(record.drifting))))


def load(place: Workplace) -> Watch | None:
    """The watch as the last look left it on this machine; None where there was none, or it is of another version."""
    from pawl.monitoring.drift_watch import Watch

    path = _file(place)
    try:
        found = msgspec.msgpack.decode(path.read_bytes(), type=Watch)
    except FileNotFoundError:
        return None
    except OSError as e:
        raise LakeError(f"{path} cannot be read: {e.strerror or e}; mend its permissions or remove it") from e
    except msgspec.DecodeError:
        return None
    return found if found.v == 1 else None


def _event(record: DriftRecord, kinds: tuple[str, ...], now: float) -> Event:
    since = {k: record.kinds[k].since for k in kinds}
    # The same drift has the same id, so that one told twice (a look that died here) is taken once.
    named = f"{record.agent} {record.champion} {sorted(since.items())}"
    detail = {
        "kinds": list(kinds),
        "champion": record.champion,
        "since": since,
        "all_kinds": list(record.drifting),
        "retrain": "no" if record.told else "yes",  # a label that triggers match
    }
    return Event(
        name="pawl.drift.found",
        agent=record.agent,
        version="",
        at=now,
        detail=detail,
        id=str(uuid.uuid5(uuid.NAMESPACE_OID, named)),
    )


def _batches(found: Iterator[Session], size: int = 500) -> Iterator[list[Session]]:
    """Lists of so many, so that texts are not all in memory at once."""
    batch = []
    for one in found:
        batch.append(one)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


def _file(place: Workplace) -> Path:
    return place.settings.home / "drift" / f"{place.agent_name}.msgpack"


def _save(path: Path, watch: Watch) -> None:
    try:
        part = path.with_suffix(".part")
        part.write_bytes(msgspec.msgpack.encode(watch))
        part.replace(path)
    except OSError as e:
        raise LakeError(f"{path} cannot be written: {e.strerror or e}; free disk space") from e


@contextmanager
def _alone(place: Workplace) -> Iterator[None]:
    """One look at an agent at a time on this machine; a second waits and finds nothing new."""
    folder = _file(place).parent
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    with (folder / f"{place.agent_name}.lock").open("ab") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
