"""Tasks from recorded traffic to a dataset version."""

from __future__ import annotations

import time
from pathlib import Path

from prefect import task
from prefect.artifacts import create_link_artifact, create_markdown_artifact

from pawl.curation import dataset as datasets
from pawl.curation.datasheet import datasheet
from pawl.errors import DataRejected
from pawl.fleet.data import DataSpec
from pawl.improvement import enough, preparing, steps
from tasks.failures import HOUR_S, MINUTE_S, PATIENT
from tasks.places import Telling, workplace
from tasks.retraining import prepared_once
from tasks.showing import dataset_rows, rename, table
from tasks.values import Collected, Dataset, Fresh


@task(**PATIENT, timeout_seconds=30 * MINUTE_S)
def collect(agent: str, since: float | None, until: float | None) -> Collected:
    """Bring the journal into the lake; count what the window holds."""
    window = steps.collect(workplace(agent), since, until)
    return Collected(agent=agent, since=since, until=until, interactions=window.interactions, feedback=window.feedback)


@task(**PATIENT, timeout_seconds=4 * HOUR_S)
def prepare(window: Collected, data: DataSpec | None) -> Dataset:
    """Validate, score, deduplicate, select, scrub, split; write the dataset version and its datasheet."""
    place = workplace(window.agent)
    stretch = steps.Window(window.agent, window.since, window.until, window.interactions, window.feedback)
    try:
        spec = data or place.agent.data
        path = prepared_once(place, stretch, spec, lambda: preparing.prepare(place, stretch, spec, Telling(place)))
    except DataRejected as e:
        create_markdown_artifact(
            key=f"rejected-{window.agent}", markdown=f"**Nothing was trained.** {e}", description="Why"
        )
        raise
    made, reports = datasets.load(path), preparing.reports_of(path)
    create_markdown_artifact(
        key=f"datasheet-{window.agent}", markdown=datasheet(made, reports), description=f"Datasheet of {path.stem}"
    )
    told = f"{path.stem}: what each step left, and why it dropped the rest"
    table(f"dataset-{window.agent}", dataset_rows(made), told)
    rename(f"prepare {path.stem}: {len(made.train)} examples")
    for report in reports:
        if report.docs:
            _link_docs(window.agent, report.suite, report.docs)
    red = tuple(c.name for c in made.card.red) if made.card else ()
    return Dataset(agent=window.agent, path=str(path), examples=len(made.train), red=red)


@task(**PATIENT, timeout_seconds=45 * MINUTE_S)
def take_in(agents: tuple[str, ...]) -> tuple[Fresh, ...]:
    """Bring the journal into the lake, count what is new, and tell where it is enough for a retrain."""
    found = []
    for agent in agents:
        place = workplace(agent)
        place.lake.ingest()
        seen = enough.look(place, time.time())
        found.append(Fresh(agent=agent, usable=seen.usable, wanted=seen.wanted, told=seen.told))
    told = "New prompts with an answer or a correction to learn from, and how many a retrain wants"
    table("fresh-feedback", [f.model_dump() for f in found], told)
    return tuple(found)


def _link_docs(agent: str, suite: str, page: str) -> None:
    create_link_artifact(
        key=f"validation-{suite}-{agent}",
        link=Path(page).resolve().as_uri(),
        link_text=f"Data Docs: {suite} of {agent}",
        description="What Great Expectations checked, and what it found",
    )
