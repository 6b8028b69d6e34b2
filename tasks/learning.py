"""Tasks from a dataset version to a judged challenger."""

from __future__ import annotations

from pathlib import Path

from prefect import task
from prefect.artifacts import create_markdown_artifact

from pawl.fleet.training import TrainingSpec
from pawl.improvement import judging, publish, steps
from tasks.failures import HOUR_S, PATIENT
from tasks.places import Telling, candidate, starter, workplace
from tasks.showing import gate_rows, rename, table
from tasks.values import Adapter, Dataset, Judged


@task(**PATIENT, timeout_seconds=24 * HOUR_S)
def train(dataset: Dataset, training: TrainingSpec | None) -> Adapter:
    """Train a LoRA; a second try continues from the last checkpoint."""
    place = workplace(dataset.agent)
    who = starter(place)
    made = steps.train(place, Path(dataset.path), training or place.agent.training, Telling(place))
    if not made.has("started_by"):  # a run that takes a training up again did not start it
        made.write("started_by", who)
    result = steps.training_of(made)
    rename(f"train {made.id}: {result.steps} steps")
    return Adapter(
        agent=dataset.agent,
        candidate=made.id,
        steps=result.steps,
        seconds=result.seconds,
        tokens_per_s=result.tokens_per_s,
    )


@task(**PATIENT, timeout_seconds=8 * HOUR_S)
def judge(adapter: Adapter) -> Judged:
    """Compare in pairs on unseen sources; let the gate decide; render the evidence."""
    place = workplace(adapter.agent)
    made = candidate(place, adapter.candidate)
    comparison, gate = judging.judge(place, made, Telling(place))
    publish.evidence_page(place, made)
    score = comparison.challenger.score
    create_markdown_artifact(
        key=f"gate-{adapter.agent}",
        description=f"The gate on {made.id}, in words",
        markdown=f"**{gate.decision}** `{made.id}`: champion {comparison.champion.score.mean:.3f}, "
        f"challenger {score.mean:.3f} [{score.lower:.3f}, {score.upper:.3f}], verdict {comparison.verdict}\n\n"
        + "\n".join(f"- {r}" for r in gate.reasons),
    )
    told = f"{gate.decision}: {made.id} against {comparison.champion.name}"
    table(f"decision-{adapter.agent}", gate_rows(comparison, gate), told)
    rename(f"evaluate {made.id}: {gate.decision}")
    return Judged(
        agent=adapter.agent,
        candidate=made.id,
        decision=gate.decision,
        reasons=gate.reasons,
        champion_score=comparison.champion.score.mean,
        challenger_score=score.mean,
        lower=score.lower,
        upper=score.upper,
        evidence=comparison.digest(),
    )
