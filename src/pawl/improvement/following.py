"""A training in the experiment server while it runs: one run a candidate, written beside the work."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from pawl.curation.dataset import DatasetVersion, name_of
from pawl.fleet.training import TrainingSpec
from pawl.improvement.workplace import Candidate, Workplace
from pawl.registry.run_log import RunLog, Status, flat, progress_metrics
from pawl.training.result import Progress
from pawl.training.search import TrialStopped


@contextmanager
def followed(
    place: Workplace, candidate: Candidate, dataset: DatasetVersion, spec: TrainingSpec, code_version: str
) -> Iterator[Callable[[Progress], None]]:
    """What to tell each step to. A candidate that was cut off goes on with its run; the registered version will link
    to it. Neither a server that is down nor one that refuses stops training."""
    run = place.runs.open(
        place.agent_name,
        candidate.id,
        params=flat(spec),
        tags={
            "kind": "training",
            "agent": place.agent_name,
            "dataset": name_of(dataset),
            "candidate": candidate.id,
            "method": spec.method,
            "code_version": code_version,
        },
        keep=candidate.run_file,
    )
    with ended(run):
        yield lambda p: run.metrics(progress_metrics(p), p.step)


@contextmanager
def ended(run: RunLog) -> Iterator[RunLog]:
    """Ends the run as the work within ends: finished, failed by an error, or killed by a person or by a search."""
    status: Status = "FAILED"
    try:
        yield run
        status = "FINISHED"
    except BaseException as e:
        status = "FAILED" if isinstance(e, Exception) and not isinstance(e, TrialStopped) else "KILLED"
        raise
    finally:
        run.close(status)


def told(p: Progress) -> str:
    """One step in a line."""
    memory = f", {p.memory_mb:,.0f} MB" if p.memory_mb else ""
    return f"loss {p.loss:.3f}, learning rate {p.learning_rate:.1e}, {p.tokens_per_s:.0f} tokens/s{memory}"
