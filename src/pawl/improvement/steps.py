"""Collect, train and judge: from recorded traffic to a challenger with its evidence. `preparing` lies between."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import msgspec

from pawl.curation import dataset as datasets
from pawl.curation.dataset import DatasetVersion
from pawl.errors import SourceError, TrainingFailed
from pawl.evaluation.report import Comparison, GateDecision
from pawl.fleet.data import DataSpec
from pawl.fleet.training import TrainingSpec
from pawl.improvement.held_out import split_of
from pawl.improvement.workplace import Candidate, Workplace
from pawl.monitoring.timeline import span
from pawl.rollout.route import Arm
from pawl.training.result import Progress, TrainResult

OnProgress = Callable[[str, int, int, str], None]
GRADERS = 2  # answers graded at a time where that starts processes


class Window(msgspec.Struct, frozen=True):
    """A stretch of recorded traffic."""

    agent: str
    since: float | None
    until: float | None
    interactions: int
    feedback: int


class Lineage(msgspec.Struct, frozen=True, kw_only=True):
    """Where a challenger comes from; every number a person approves can be recomputed from it."""

    dataset: str
    dataset_fingerprint: str
    base_sha256: str
    adapter_sha256: str
    code_version: str
    parent: str  # the arm it started from
    candidate: str


def collect(place: Workplace, since: float | None, until: float | None) -> Window:
    """Move sealed journal segments into the lake and count the window's records."""
    from pawl.lake.window_duckdb import window

    place.lake.ingest()
    with window(place.lake, place.agent_name, since, until) as db:
        ((seen, said),) = db.execute(
            "SELECT (SELECT count(*) FROM interactions), (SELECT count(*) FROM feedback)"
        ).fetchall()
    return Window(place.agent_name, since, until, seen, said)


def start_arm(place: Workplace, spec: TrainingSpec) -> Arm:
    """What training continues from: a champion's adapter, the agent's own or another's, or the base model."""
    from pawl.bootstrap import upstream_arm

    base = upstream_arm(place.fleet, place.fleet.local_upstream)
    champion = base if spec.start == "base" else _champion(place, spec.start)
    return champion if champion.kind == "local" else base


def _champion(place: Workplace, of: str) -> Arm:
    """`champion` is the agent's own; any other name an agent's."""
    from pawl.bootstrap import current_route

    agent = place.agent if of == "champion" else place.fleet.agent(of)
    return current_route(place.fleet, place.control, agent).champion


def _merged_with(place: Workplace, spec: TrainingSpec) -> tuple[Path, ...]:
    """Adapters of the champions that the result is averaged with; none that is no adapter yet."""
    if spec.merge is None:
        return ()
    folders = [place.settings.adapters_dir / _champion(place, other).name for other in spec.merge.others]
    return tuple(f for f in folders if f.exists())


def train(place: Workplace, dataset: Path, spec: TrainingSpec, on_progress: OnProgress) -> Candidate:
    """Train a LoRA on a dataset version; a run that was cut off continues, a finished one is kept.

    PolicyViolation where a licence, a consent or a privacy class forbids it, before anything is downloaded if it can.
    """
    from pawl.improvement.allowed import demand_allowed
    from pawl.improvement.base_quality import demand_measured
    from pawl.improvement.continuing import earlier_examples
    from pawl.improvement.following import followed, told
    from pawl.registry.adapter_hash import adapter_sha256
    from pawl.training.base_model_transformers import base_sha256, prepare_base
    from pawl.training.peft_trainer import train as fit

    version = datasets.load(dataset)
    demand_allowed(place, version)
    start = start_arm(place, spec)
    candidate = place.candidate(version.fingerprint, spec, start.name)
    if candidate.has("lineage"):
        return candidate
    base_dir = prepare_base(place.fleet.base_model.source, place.settings.models_dir)
    demand_allowed(place, version, base_dir)
    demand_measured(place, base_dir)
    folder = place.settings.adapters_dir / start.name
    losses: list[tuple[int, float]] = []

    def tell(p: Progress) -> None:
        if p.stage == "examples":
            losses.append((p.step, p.loss))
        follow(p)
        on_progress("training", p.step, p.steps, told(p))

    with span(place.timeline, "model", "train"), followed(place, candidate, version, spec, code_version()) as follow:
        result = fit(
            dataset,
            spec,
            base_dir,
            candidate.folder / "training",
            start_adapter=folder if folder.exists() else None,
            on_progress=tell,
            earlier=earlier_examples(place, version, spec.ewc.examples) if spec.ewc else (),
            texts=place.settings.fleet.resolve().parent,
            merge_with=_merged_with(place, spec),
        )
    candidate.write("training", result)
    candidate.write("losses", losses)
    candidate.write("spec", spec.model_dump(mode="json"))
    candidate.write(
        "lineage",
        Lineage(
            dataset=dataset.name,
            dataset_fingerprint=version.fingerprint,
            base_sha256=base_sha256(base_dir),
            adapter_sha256=adapter_sha256(candidate.adapter),
            code_version=code_version(),
            parent=start.name,
            candidate=candidate.id,
        ),
    )
    return candidate


def judge(place: Workplace, candidate: Candidate, on_progress: OnProgress) -> tuple[Comparison, GateDecision]:
    """Champion and challenger answer the same items of sources that training never saw."""
    from pawl.bootstrap import current_route
    from pawl.evaluation.gate import gate
    from pawl.evaluation.paired import compare
    from pawl.evaluation.runner import answer_items
    from pawl.qe.tasks import task_of
    from pawl.registry.adapter_hash import adapter_sha256
    from pawl.serving import vllm_adapters

    lineage = candidate.read("lineage", Lineage)
    if training_of(candidate).method == "full" or (candidate.folder / "training" / "merged").exists():
        raise TrainingFailed(
            f"{candidate.id} is a model of its own, in its folder training/merged: serve that on a replica and name it "
            "in fleet.yaml as an upstream; adapters that are hot-loaded need method lora, rslora or adalora"
        )
    version = datasets.load(place.settings.datasets_dir / lineage.dataset)
    # What was held out is what the dataset's own spec held out, whatever fleet.yaml says by now.
    agent = place.agent.model_copy(update={"data": DataSpec.model_validate(version.spec)} if version.spec else {})
    held = split_of(agent).test
    if not held:
        raise SourceError(
            f"the task {agent.task!r} of {agent.name} has no oracle, so nothing can be judged or promoted"
        )
    picked = random.Random(agent.evaluation.items).sample(held, min(agent.evaluation.items, len(held)))
    task = task_of(agent.task)
    items = [msgspec.structs.replace(i, scenario=task.class_of(i)) for i in picked]
    champion = current_route(place.fleet, place.control, agent).champion
    challenger = f"candidate-{lineage.adapter_sha256[:12]}"
    url = place.settings.vllm_url
    vllm_adapters.reconcile(url, {challenger: str(candidate.adapter.resolve())})
    sides = []
    # Answers are kept by the weights that gave them: a champion's are those it gave as a challenger.
    folder = place.settings.adapters_dir / champion.name
    weights = adapter_sha256(folder) if folder.exists() else champion.name
    for name, model, digest in (
        (champion.name, champion.model, lineage.base_sha256 + weights),
        (challenger, challenger, lineage.base_sha256 + lineage.adapter_sha256),
    ):
        with span(place.timeline, "model", f"evaluate {name}"):
            results = answer_items(
                items,
                model,
                url,
                max_tokens=agent.max_tokens,
                cache_dir=place.settings.home / "answers",
                model_hash=digest,
                graders=1 if task.instant else GRADERS,
                grade=lambda item, text: task.grade(item.messages, text, item.truth),
                on_progress=_evaluating(name, on_progress),
            )
        sides.append((name, results))
    comparison = compare(
        agent.name,
        sides[0],
        sides[1],
        margin=agent.evaluation.margin,
        alpha=agent.evaluation.alpha,
        dataset=lineage.dataset_fingerprint,
        training_sources=set(version.sources),
    )
    decision = gate(comparison, agent.evaluation, place.control.rejection(lineage.adapter_sha256))
    candidate.write("comparison", comparison)
    candidate.write("gate", decision)
    return comparison, decision


def _evaluating(name: str, on_progress: OnProgress) -> Callable[[int, int], None]:
    return lambda done, total: on_progress(f"evaluating {name}", done, total, "")


def training_of(candidate: Candidate) -> TrainResult:
    """What training reported."""
    return candidate.read("training", TrainResult)


def dataset_of(place: Workplace, candidate: Candidate) -> DatasetVersion:
    """The dataset version a candidate was trained on."""
    return datasets.load(place.settings.datasets_dir / candidate.read("lineage", Lineage).dataset)


def code_version() -> str:
    """Pawl's version, with the commit where the code runs from a checkout."""
    import subprocess

    from pawl import __version__

    try:
        found = subprocess.run(
            ["git", "describe", "--always", "--dirty"],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            timeout=5,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return __version__
    return f"{__version__}+{found.stdout.strip()}"
