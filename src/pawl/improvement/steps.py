"""Collect and train: from recorded traffic to a challenger. `preparing` lies between; `judging` follows."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec

from pawl.curation import dataset as datasets
from pawl.curation.dataset import DatasetVersion
from pawl.fleet.training import TrainingSpec
from pawl.improvement.workplace import Candidate, Workplace
from pawl.monitoring.timeline import span
from pawl.training.result import Progress, TrainResult

OnProgress = Callable[[str, int, int, str], None]


class Window(msgspec.Struct, frozen=True):
    """A stretch of recorded traffic."""

    agent: str
    since: float | None
    until: float | None
    interactions: int
    feedback: int


class Lineage(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Where a challenger comes from; every number a person approves can be recomputed from it."""

    dataset: str
    dataset_fingerprint: str
    base_sha256: str
    adapter_sha256: str
    code_version: str
    parent: str  # the arm it started from
    candidate: str
    averaged_with: str = ""  # arms whose adapters are in it too, by training.merge


def collect(place: Workplace, since: float | None, until: float | None) -> Window:
    """Move sealed journal segments into the lake and count the window's records."""
    from pawl.lake.window_duckdb import window

    place.lake.ingest()
    with window(place.lake, place.agent_name, since, until) as db:
        ((seen, said),) = db.execute(
            "SELECT (SELECT count(*) FROM interactions), (SELECT count(*) FROM feedback)"
        ).fetchall()
    return Window(place.agent_name, since, until, seen, said)


def train(place: Workplace, dataset: Path, spec: TrainingSpec, on_progress: OnProgress) -> Candidate:
    """Train a LoRA on a dataset version; a run that was cut off continues, a finished one is kept.

    PolicyViolation where a licence, a consent or a privacy class forbids it, before anything is downloaded if it can.
    ModelFileError where the base model, or an adapter that is to be continued or averaged, cannot be had.
    """
    from pawl.improvement.allowed import demand_allowed
    from pawl.improvement.base_quality import demand_measured
    from pawl.improvement.following import followed, told
    from pawl.improvement.starting import beginning, texts_root
    from pawl.registry.adapter_hash import adapter_sha256
    from pawl.training.base_model_transformers import prepare_base
    from pawl.training.peft_trainer import train as fit

    version = datasets.load(dataset)
    demand_allowed(place, version)
    base_dir = prepare_base(place.fleet.base_model.source, place.settings.models_dir)
    demand_allowed(place, version, base_dir)
    demand_measured(place, base_dir)
    begun = beginning(place, version, spec, base_dir)
    candidate = place.candidate(version.fingerprint, spec, begun.key)
    if candidate.has("lineage") and candidate.read("lineage", Lineage).base_sha256 == begun.base_sha256:
        return candidate

    def tell(p: Progress) -> None:
        follow(p)
        on_progress("training", p.step, p.steps, told(p))

    with span(place.timeline, "model", "train"), followed(place, candidate, version, spec, code_version()) as follow:
        result = fit(
            dataset,
            spec,
            base_dir,
            candidate.folder / "training",
            start_adapter=begun.start.adapter,
            on_progress=tell,
            earlier=begun.earlier,
            texts=texts_root(place),
            merge_with=begun.others,
        )
    if begun.start.note:
        result = msgspec.structs.replace(result, notes=(begun.start.note, *result.notes))
    candidate.write("training", result)
    candidate.write("losses", [row for s in result.stages if s.name == "examples" for row in s.losses])
    candidate.write("spec", spec.model_dump(mode="json"))
    candidate.write(
        "lineage",
        Lineage(
            dataset=dataset.name,
            dataset_fingerprint=version.fingerprint,
            base_sha256=begun.base_sha256,
            adapter_sha256=adapter_sha256(candidate.adapter),
            code_version=code_version(),
            parent=begun.start.arm.name,
            candidate=candidate.id,
            averaged_with=", ".join(o.name for o in begun.others),
        ),
    )
    return candidate


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
