"""The task that searches training settings."""

from __future__ import annotations

from prefect import task
from prefect.artifacts import create_markdown_artifact

from pawl.curation import dataset as datasets
from tasks.failures import HOUR_S, PATIENT
from tasks.places import Telling, workplace
from tasks.values import Searched


@task(**PATIENT, timeout_seconds=24 * HOUR_S)
def search(agent: str, dataset: str, minutes: float | None, trials: int | None) -> Searched:
    """Trials on a dataset version (none: the newest), and the proposal; a second try goes on where it was."""
    from pawl.improvement import searching

    place = workplace(agent)
    folder = place.settings.datasets_dir
    path = datasets.find(folder, dataset) if dataset else searching.newest_dataset(folder, agent)
    done = searching.search(place, path, Telling(place), trials=trials, minutes=minutes)
    create_markdown_artifact(key=f"search-{agent}", markdown=done.markdown, description="Proposed training settings")
    report = done.report
    return Searched(
        agent=agent,
        dataset=path.stem,
        trials=len(report.trials),
        verdict=report.verdict,
        present_loss=report.present.mean,
        proposed_loss=report.proposed.mean,
        proposal=str(done.proposal),
    )
