"""Tasks from recorded traffic to a dataset version."""

from __future__ import annotations

from pathlib import Path

from prefect import task
from prefect.artifacts import create_link_artifact, create_markdown_artifact

from pawl.curation import dataset as datasets
from pawl.curation.datasheet import datasheet
from pawl.errors import DataRejected
from pawl.fleet.data import DataSpec
from pawl.improvement import preparing, steps
from tasks.places import Telling, workplace
from tasks.values import Collected, Dataset


@task
def collect(agent: str, since: float | None, until: float | None) -> Collected:
    """Bring the journal into the lake; count what the window holds."""
    window = steps.collect(workplace(agent), since, until)
    return Collected(agent=agent, since=since, until=until, interactions=window.interactions, feedback=window.feedback)


@task
def prepare(window: Collected, data: DataSpec | None) -> Dataset:
    """Validate, score, deduplicate, select, scrub, split; write the dataset version and its datasheet."""
    place = workplace(window.agent)
    stretch = steps.Window(window.agent, window.since, window.until, window.interactions, window.feedback)
    try:
        path = preparing.prepare(place, stretch, data or place.agent.data, Telling(place))
    except DataRejected as e:
        create_markdown_artifact(key=f"rejected-{window.agent}", markdown=f"**Nothing was trained.** {e}")
        raise
    made, reports = datasets.load(path), preparing.reports_of(path)
    create_markdown_artifact(key=f"datasheet-{window.agent}", markdown=datasheet(made, reports))
    for report in reports:
        if report.docs:
            _link_docs(window.agent, report.suite, report.docs)
    red = tuple(c.name for c in made.card.red) if made.card else ()
    return Dataset(agent=window.agent, path=str(path), examples=len(made.train), red=red)


def _link_docs(agent: str, suite: str, page: str) -> None:
    create_link_artifact(
        key=f"validation-{suite}-{agent}",
        link=Path(page).resolve().as_uri(),
        link_text=f"Data Docs: {suite} of {agent}",
        description="What Great Expectations checked, and what it found",
    )
