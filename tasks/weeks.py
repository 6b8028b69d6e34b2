"""Tasks of the weekly retrain of the fleet: which weeks are missed, what one would take, and what came of it."""

from __future__ import annotations

import tempfile
import time
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Literal

from httpx import HTTPError
from prefect import task
from prefect.artifacts import create_table_artifact
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowFilter, FlowFilterName
from prefect.client.schemas.schedules import CronSchedule
from prefect.exceptions import PrefectException

from pawl.bootstrap import fleet
from pawl.curation import dataset as datasets
from pawl.errors import ConfigError, DataRejected, NotEnoughData, PawlError
from pawl.improvement import preparing, steps, weekly
from pawl.improvement import weeks as calendar
from pawl.improvement.weeks import Schedule, Stretch
from pawl.settings import Settings
from tasks.failures import PATIENT
from tasks.places import Telling, workplace
from tasks.retraining import root_run
from tasks.values import Promoted, Value

Outcome = Literal["trained", "done before", "too little data", "busy", "failed", "would train", "would not train"]
FLOW = "improve-fleet"


class MissedWeek(Value):
    """A week that an agent has not learnt from, in epoch seconds."""

    agent: str
    since: float
    until: float
    shown: str


class WeekRun(Value):
    """What came of one week of one agent, or would."""

    agent: str
    week: str
    outcome: Outcome
    told: str = ""
    version: str = ""
    decision: str = ""
    interactions: int | None = None
    feedback: int | None = None
    examples: int | None = None
    minutes: float | None = None  # of training
    memory_gb: float | None = None


@task(**PATIENT)
def missed_weeks(agents: list[str] | None, weeks_back: int, week: str | None) -> tuple[MissedWeek, ...]:
    """Of the latest weeks that have ended, or of the one with the day `week`, those each agent has not learnt from.

    In the order of fleet.yaml, oldest first. ConfigError for an agent that is not there, or a day that is none.
    """
    settings = Settings()
    known = [a.name for a in fleet(settings).agents]
    _demand_known(agents, known)
    schedule = weekly_schedule(settings)
    wanted = calendar.latest(schedule, time.time(), weeks_back) if not week else [_week(schedule, week)]
    found = []
    for name in known if agents is None else agents:
        done = [w.stretch for w in weekly.done_weeks(workplace(name).control, name)]
        found += [
            MissedWeek(agent=name, since=s.since, until=s.until, shown=calendar.shown(s, schedule.timezone))
            for s in calendar.missed(wanted, done)
        ]
    return tuple(found)


@task
def traffic_since(agents: list[str] | None, since: float) -> tuple[MissedWeek, ...]:
    """The stretch from then until now of each agent, which a run of `improve-agent` learns from. 0: all there is."""
    known, now = [a.name for a in fleet(Settings()).agents], time.time()
    _demand_known(agents, known)
    shown = f"since {datetime.fromtimestamp(since, UTC):%Y-%m-%d %H:%M} UTC" if since else "all traffic"
    return tuple(MissedWeek(agent=a, since=since, until=now, shown=shown) for a in agents or known)


@task(**PATIENT)
def is_still_missed(week: MissedWeek) -> bool:
    """Whether no other run has learnt from it meanwhile."""
    done = weekly.done_weeks(workplace(week.agent).control, week.agent)
    return bool(calendar.missed([Stretch(week.since, week.until)], [w.stretch for w in done]))


@task(**PATIENT)
def nothing_recorded(week: MissedWeek) -> bool:
    """Whether there is nothing at all to learn from: an agent that nobody asked is no failure."""
    from pawl.lake.window_duckdb import window as open_window

    place = workplace(week.agent)
    with open_window(place.lake, week.agent, week.since, week.until, place.agent.data.late_days) as db:
        ((rows,),) = db.execute(
            "SELECT (SELECT count(*) FROM interactions) + (SELECT count(*) FROM observations)"
        ).fetchall()
    return not rows


@task(**PATIENT)
def record_week(week: MissedWeek, promoted: Promoted) -> WeekRun:
    """The week is done, whatever the gate said: what was refused would be refused again."""
    done = weekly.done_week(
        Stretch(week.since, week.until),
        version=promoted.version,
        adapter=promoted.adapter,
        decision=promoted.decision,
        run=root_run(),
    )
    weekly.record(workplace(week.agent).control, week.agent, done)
    return WeekRun(
        agent=week.agent,
        week=week.shown,
        outcome="trained",
        version=promoted.version,
        decision=promoted.decision,
        told=promoted.unasked,
    )


@task
def rehearse_week(week: MissedWeek) -> WeekRun:
    """What the week's run would collect and train, and what that would take; nothing is kept of it."""
    from pawl.improvement.planning import plan
    from pawl.lake.window_duckdb import window as open_window

    place = workplace(week.agent)
    with open_window(place.lake, week.agent, week.since, week.until) as db:
        # Of this week's answers alone: the window's feedback has no end, because it comes late.
        ((seen, said),) = db.execute(
            "SELECT (SELECT count(*) FROM interactions), "
            "(SELECT count(*) FROM feedback WHERE interaction IN (SELECT id FROM interactions))"
        ).fetchall()
    facts = {"agent": week.agent, "week": week.shown, "interactions": seen, "feedback": said}
    stretch = steps.Window(week.agent, week.since, week.until, seen, said)
    try:
        made, _ = preparing.rehearse(place, stretch, place.agent.data, Telling(place))
        facts["examples"] = len(made.train)
        with tempfile.TemporaryDirectory() as folder:
            needs = plan(place, datasets.save(made, Path(folder)))
    except PawlError as e:
        return WeekRun(**facts, outcome="would not train", told=str(e))
    facts |= {"minutes": round(needs.seconds / 60, 1), "memory_gb": round(needs.memory.total / 1e9, 2)}
    if not needs.good:
        against = [*map(str, needs.violations), *needs.problems]
        return WeekRun(**facts, outcome="would not train", told="; ".join(against))
    return WeekRun(**facts, outcome="would train", told=f"speed: {needs.speed.how}")


@task
def show_weeks(runs: tuple[WeekRun, ...], dry_run: bool) -> tuple[WeekRun, ...]:
    """A table of it all in Prefect's UI."""
    rows = [{k: v for k, v in r.model_dump().items() if v not in (None, "")} for r in runs]
    title = "What would be trained; nothing was changed" if dry_run else "What came of each week"
    if not rows:
        rows = [{"outcome": "no week is missed"}]
    create_table_artifact(key="weeks-dry-run" if dry_run else "weeks", table=rows, description=title)
    return runs


def failed_week(week: MissedWeek, error: Exception) -> WeekRun:
    """What to say of a week that came to nothing (pure). Too little data is no failure: more feedback may come."""
    outcome: Outcome = "too little data" if isinstance(error, NotEnoughData) else "failed"
    kind = "" if isinstance(error, PawlError) and not isinstance(error, DataRejected) else f"{type(error).__name__}: "
    return WeekRun(agent=week.agent, week=week.shown, outcome=outcome, told=f"{kind}{error}")


def weekly_schedule(settings: Settings) -> Schedule:
    """The weekly deployment's cron schedule, one that is paused too; else Sunday 02:00 in PAWL_TIMEZONE."""
    try:
        with get_client(sync_client=True) as client:
            found = client.read_deployments(flow_filter=FlowFilter(name=FlowFilterName(any_=[FLOW])))
        timed = [(s.active, s.schedule) for d in found for s in d.schedules if isinstance(s.schedule, CronSchedule)]
        for _, one in sorted(timed, key=lambda t: not t[0]):
            return calendar.schedule_of(one.cron, one.timezone or "UTC")
    except (HTTPError, PrefectException):
        pass  # a run without a server has no schedule
    return Schedule(timezone=settings.timezone)


def _demand_known(agents: list[str] | None, known: list[str]) -> None:
    if unknown := sorted(set(agents or ()) - set(known)):
        raise ConfigError(
            "improve_fleet", [f"no agent is called {a!r}; known are: {', '.join(known)}" for a in unknown]
        )


def _week(schedule: Schedule, day: str) -> Stretch:
    try:
        found = calendar.week_of(schedule, date.fromisoformat(day))
    except ValueError as e:
        raise ConfigError("improve_fleet", [f"{day!r} is no day; write one as 2026-11-15"]) from e
    if found.until > time.time():
        ends = calendar.shown(found, schedule.timezone)
        raise ConfigError(
            "improve_fleet", [f"the week of {day} ({ends}) has not ended; `pawl improve --days` takes it"]
        )
    return found
