"""The weekly retrain of one agent or all: every week that was missed, oldest first, and none twice."""

from __future__ import annotations

from typing import Annotated

from prefect import flow, runtime
from pydantic import Field

from flows.improve_agent import improve_agent
from pawl.errors import ConfigError, PawlError
from pawl.improvement.retrain_lease import AlreadyRetraining, WhenBusy
from tasks.retraining import retraining
from tasks.weeks import (
    MissedWeek,
    WeekRun,
    failed_week,
    is_still_missed,
    missed_weeks,
    nothing_recorded,
    record_week,
    rehearse_week,
    show_weeks,
    traffic_since,
)


def _name() -> str:
    given = runtime.flow_run.parameters
    what = "rehearse" if given.get("dry_run") else "improve"
    return f"{what} {', '.join(given.get('agents') or ['all agents'])}"


@flow(flow_run_name=_name)
def improve_fleet(
    agents: list[str] | None = None,
    weeks_back: Annotated[int, Field(ge=1, le=52)] = 1,
    dry_run: bool = False,
    when_busy: WhenBusy = "wait",
    week: str | None = None,
    since: Annotated[float | None, Field(ge=0)] = None,
) -> tuple[WeekRun, ...]:
    """Retrain every agent on each week that it has not learnt from. One agent's failure does not stop the others.

    Raises PawlError at the end where a week failed, with every reason.

    Args:
        agents: names in fleet.yaml; none: all
        weeks_back: how many weeks that have ended are looked at for missed ones
        dry_run: say what would be collected and trained, with time and memory; change nothing
        when_busy: where another run retrains an agent: wait for its end, or leave that agent out
        week: only the week with this day, e.g. 2026-11-15, however long ago
        since: of a dry run: not whole weeks, but all traffic from this moment on (seconds since 1970), which is what
            improve-agent learns from; 0: all there is
    """
    if since is not None and not dry_run:
        raise ConfigError("improve_fleet", ["since is of a dry run alone: improve-agent learns from such a stretch"])
    weeks = missed_weeks(agents, weeks_back, week) if since is None else traffic_since(agents, since)
    if dry_run:
        return show_weeks(tuple(rehearse_week(one) for one in weeks), dry_run)
    runs = show_weeks(tuple(improve_week(one, when_busy) for one in weeks), dry_run)
    if failed := [r for r in runs if r.outcome == "failed"]:
        reasons = "\n".join(f"{r.agent}, {r.week}: {r.told}" for r in failed)
        raise PawlError(f"{len(failed)} of {len(runs)} weeks failed; a later run takes them up again:\n{reasons}")
    return runs


def improve_week(week: MissedWeek, when_busy: WhenBusy) -> WeekRun:
    """One week of one agent; while this one waited, another run may have done it."""
    try:
        with retraining(week.agent, when_busy):
            if not is_still_missed(week):
                return WeekRun(agent=week.agent, week=week.shown, outcome="done before")
            if nothing_recorded(week):
                return WeekRun(
                    agent=week.agent, week=week.shown, outcome="too little data", told="nothing was recorded"
                )
            return record_week(week, improve_agent(week.agent, week.since, week.until))
    except AlreadyRetraining as e:
        return WeekRun(agent=week.agent, week=week.shown, outcome="busy", told=str(e))
    except Exception as e:  # the other agents' weeks do not wait for this one's repair
        return failed_week(week, e)
