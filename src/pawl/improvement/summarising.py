"""A day's summary: gathered from the lake and the control database, kept as a file."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import NamedTuple

from pawl import bootstrap
from pawl.errors import LakeError, PawlError
from pawl.improvement.workplace import Workplace
from pawl.monitoring import baseline, drift_record
from pawl.monitoring.day_summary import AgentDay, DaySummary, Outcomes, Traffic, markdown, summary
from pawl.monitoring.months import days_of, zone_of
from pawl.registry.approvals import unanswered
from pawl.rollout.control import ControlStore
from pawl.rollout.state import TERMINAL


class Page(NamedTuple):
    """A summary as it was kept."""

    summary: DaySummary
    text: str
    file: Path


def summarise(place: Workplace, day: str | None, now: float) -> Page:
    """Sum the day up and keep the page in the reports' folder; the same day again replaces it."""
    made = gathered(place, day, now)
    text, file = markdown(made), place.settings.reports_dir / f"day-{made.day}.md"
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        part = file.with_suffix(".part")
        part.write_text(text)
        part.replace(file)
    except OSError as e:
        raise LakeError(f"{file} cannot be written: {e.strerror or e}; free disk space") from e
    return Page(made, text, file)


def gathered(place: Workplace, day: str | None, now: float) -> DaySummary:
    """The day's figures, of a day in the settings' time zone. PawlError where it is no date or lies ahead.

    Approvals, drift and alarms are those of now: what a person who reads this in the morning has to do.
    """
    from pawl.monitoring.day_duckdb import traffic

    name, since, end = bounds(day, now, zone_of(place.settings.timezone))
    answered, outcomes = traffic(place.lake, since, end)
    control, requests = place.control, place.control.requests()
    agents, alarms = [], _alarms(control)
    for spec in place.fleet.agents:
        champion = bootstrap.current_route(place.fleet, control, spec).champion
        record = drift_record.read(control, spec.name)
        rollouts, rolled_back = _rollouts(control, spec.name, since, end)
        waiting = unanswered(requests, control.rollouts(spec.name))
        agents.append(
            AgentDay(
                agent=spec.name,
                champion=champion.name,
                traffic=answered.get(spec.name, Traffic()),
                outcomes=outcomes.get((spec.name, champion.name), Outcomes()),
                baseline=baseline.known(control, spec.name, champion, requests),
                drifting=drift_record.of_champion(control, spec.name, champion.name),
                drift_known=record is not None and record.champion == champion.name and record.known,
                watched_at=record.looked_at if record is not None else None,
                alarm=alarms.get(spec.name) == champion.name,
                rollouts=rollouts,
                rolled_back=rolled_back,
                waiting=tuple(
                    r.version for r in waiting if r.agent == spec.name and r.closed_at is None and now < r.expires
                ),
            )
        )
    return summary(name, now, now >= end, tuple(agents))


def bounds(day: str | None, now: float, zone: dt.tzinfo) -> tuple[str, float, float]:
    """(its date, its begin, its end) of a day there, epoch seconds; without one, the last that is over (pure)."""
    today = dt.datetime.fromtimestamp(now, zone).date()
    try:
        meant = today - dt.timedelta(days=1) if day is None else dt.date.fromisoformat(day)
    except ValueError as e:
        raise PawlError(f"{day!r} is no day; write it like 2026-11-21") from e
    if meant > today:
        raise PawlError(f"{day} has not come yet; leave the day out for yesterday's summary")
    begin = dt.datetime.combine(meant, dt.time(), zone).timestamp()
    (found,) = days_of(begin, begin, zone)
    return found


def _alarms(control: ControlStore) -> dict[str, str]:
    """agent -> the champion that a watchdog has alarmed about and not called well since."""
    found: dict[str, str] = {}
    for entry in control.audit_log():
        if entry["event"] == "champion alarm":
            found[entry["detail"]["agent"]] = entry["detail"]["champion"]
        elif entry["event"] == "champion alarm over":
            found.pop(entry["detail"]["agent"], None)
    return found


def _rollouts(control: ControlStore, agent: str, since: float, end: float) -> tuple[tuple[str, ...], int]:
    """The open one and those that ended that day, in words; how many of them were rolled back."""
    told, back = [], 0
    for r in control.rollouts(agent):
        if r.stage not in TERMINAL:
            told.append(f"version {r.version} at {r.stage}{', held' if r.held else ''}")
        elif since <= r.stage_since < end:
            told.append(f"version {r.version} {r.stage.replace('_', ' ')}")
            back += r.stage == "rolled_back"
    return tuple(told), back
