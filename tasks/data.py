"""Tasks from recorded traffic to a dataset version."""

from __future__ import annotations

from pathlib import Path

from prefect import task

from pawl.curation import dataset as datasets
from pawl.fleet.spec import TrainingSpec
from pawl.improvement import steps
from tasks.places import workplace
from tasks.values import Collected, Dataset


@task
def collect(agent: str, since: float | None, until: float | None) -> Collected:
    """Bring the journal into the lake; count what the window holds."""
    window = steps.collect(workplace(agent), since, until)
    return Collected(agent=agent, since=since, until=until, interactions=window.interactions, feedback=window.feedback)


@task
def prepare(window: Collected, training: TrainingSpec | None) -> Dataset:
    """Validate, score, deduplicate, split; write the dataset version."""
    place = workplace(window.agent)
    stretch = steps.Window(window.agent, window.since, window.until, window.interactions, window.feedback)
    path = steps.prepare(place, stretch, training or place.agent.training)
    return Dataset(agent=window.agent, path=str(path), examples=len(datasets.load(Path(path)).examples))
