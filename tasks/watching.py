"""Tasks that look at what serves: drift, and the day's summary."""

from __future__ import annotations

import time

from prefect import task
from prefect.artifacts import create_markdown_artifact

from pawl.improvement import summarising, watching
from pawl.monitoring.drift_told import markdown
from tasks.failures import BRIEF, HOUR_S, MINUTE_S, PATIENT
from tasks.places import workplace
from tasks.values import Summarised, Watched


@task(**BRIEF, timeout_seconds=10 * MINUTE_S, task_run_name="look for drift of {agent}")
def watch(agent: str) -> Watched:
    """One look; a page in Prefect's UI where a drift is on."""
    record = watching.look(workplace(agent), time.time())
    if record.drifting:
        create_markdown_artifact(key=f"drift-{agent}", markdown=markdown(record))
    return Watched(agent=agent, champion=record.champion, drifting=record.drifting, told=record.told)


@task(**PATIENT, timeout_seconds=HOUR_S, task_run_name="summarise {day}")
def summarise(day: str | None) -> Summarised:
    """The day's page in Prefect's UI and as a file."""
    page = summarising.summarise(workplace(""), day, time.time())
    create_markdown_artifact(key=f"day-{page.summary.day}", markdown=page.text)
    return Summarised(day=page.summary.day, problems=page.summary.problems, file=str(page.file))
