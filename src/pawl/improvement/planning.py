"""`pawl plan-training`: what an agent's next training will take, before it begins."""

from __future__ import annotations

from pathlib import Path

from pawl.curation import dataset as datasets
from pawl.curation.dataset import DatasetVersion
from pawl.errors import LakeError, ModelFileError, NotEnoughData
from pawl.fleet.training import TrainingSpec
from pawl.improvement.allowed import violations
from pawl.improvement.base_quality import demand_measured
from pawl.improvement.workplace import Candidate, Workplace
from pawl.training import plan as arithmetic
from pawl.training.base_model_transformers import WHEEL, base_sha256, check_folder, prepare_base
from pawl.training.licences import licence_of
from pawl.training.machine import Machine
from pawl.training.plan import Load, Shape
from pawl.training.plan_report import Plan, Speed, problems_of, rough_speed, size, steps_of, tokens_of
from pawl.training.policy import Violation
from pawl.training.result import TrainResult


def plan(place: Workplace, dataset: Path, *, measure: bool = False) -> Plan:
    """The plan for the agent's present spec over a dataset version.

    Weights of a Hugging Face model are not downloaded for it, unless steps are to be timed. Raises NotEnoughData where
    nothing would be left to train on, ModelFileError where the base model cannot be looked at.
    """
    from pawl.training import plan_transformers as real

    spec, base = place.agent.training, place.fleet.base_model
    version = datasets.load(dataset)
    folder, fetched = _folder(place)
    forbidden = [*violations(place, version, folder), *_unmeasured(place, folder)]
    if measure and not forbidden and not fetched:
        folder, fetched = prepare_base(base.source, place.settings.models_dir), True
    machine = real.here(place.settings.home)
    shape = real.shape_in(folder)
    found = real.lengths_of(version, spec, folder)
    if not found.kept:
        raise NotEnoughData(
            f"none of {len(found.raw)} examples fits into {spec.max_tokens} tokens; raise training.max_tokens"
        )
    tokens = tokens_of(
        found.raw,
        [n for n, _ in found.kept],
        len(version.train),
        long=found.long,
        rule=spec.long,
        pairs=sum(p.split == "train" for p in version.pairs),
    )
    load = arithmetic.largest_load(found.kept, spec.batch_size, real.portion(machine))
    stages = [load, *arithmetic.pretrain_loads(spec, real.portion(machine))]
    needs = [arithmetic.memory(shape, spec, s, cuda=machine.gpu is not None, half=machine.half) for s in stages]
    memory = max(needs, key=lambda m: m.total)
    load = stages[needs.index(memory)]
    disk = arithmetic.disk(shape, spec, fetched=fetched)
    problems = problems_of(spec, memory, disk, machine)
    if measure and not forbidden and not problems:
        speed = real.measured(version, spec, folder)
    else:
        speed = _earlier(place, spec, folder if fetched else None, machine) or rough_speed(shape, spec, machine)
    steps = steps_of(tokens.used, spec)
    return Plan(
        agent=place.agent_name,
        dataset=dataset.stem,
        base=base.source,
        licence=licence_of(base.source, folder, base.licence),
        method=spec.method,
        parameters=shape.parameters,
        trained=arithmetic.trained_parameters(shape, spec),
        tokens=tokens,
        steps=steps,
        load=load,
        memory=memory,
        disk=disk,
        speed=speed,
        seconds=tokens.per_epoch * spec.epochs / max(speed.tokens_per_s, 1e-9),
        machine=machine,
        notes=tuple([*_notes(version, spec, speed), *_spread(shape, spec, load, machine)]),
        violations=tuple(forbidden),
        problems=tuple(problems),
    )


def _unmeasured(place: Workplace, folder: Path) -> list[Violation]:
    """A quantised base of which nobody knows what that costs forbids training, as training itself says."""
    try:
        demand_measured(place, folder)
    except ModelFileError as e:
        return [Violation("base model", str(e))]
    return []


def _folder(place: Workplace) -> tuple[Path, bool]:
    """(the base model's files, or what of them a plan needs; whether the weights are among them)."""
    from pawl.training.plan_transformers import look

    source, models = place.fleet.base_model.source, place.settings.models_dir
    if source == WHEEL or Path(source).expanduser().is_dir() or source.startswith((".", "/", "~")):
        return prepare_base(source, models), True
    kept = models / source.replace("/", "--")
    if kept.exists():
        check_folder(kept)
        return kept, True
    return look(source, models), False


def _spread(shape: Shape, spec: TrainingSpec, load: Load, machine: Machine) -> list[str]:
    """Where one GPU is too small and several are here: how many would do."""
    gpu = machine.gpu
    for shards in range(1, (gpu.count if gpu else 0) + 1):
        found = arithmetic.memory(shape, spec, load, cuda=True, half=machine.half, shards=shards)
        if gpu and found.total <= gpu.free:
            each = f"{shards} GPUs by FSDP (infra/accelerate/fsdp.yaml) would need {size(found.total)} each"
            return [each] if shards > 1 else []
    return []


def _earlier(place: Workplace, spec: TrainingSpec, base_dir: Path | None, machine: Machine) -> Speed | None:
    """The speed of the latest run on this machine over the same base by the same method, of any agent."""
    from pawl.improvement.steps import Lineage

    if base_dir is None:
        return None
    digest = base_sha256(base_dir)
    folders = (p.parent for p in (place.settings.home / "candidates").glob("*/lineage.json"))
    for folder in sorted(folders, key=lambda p: (p / "lineage.json").stat().st_mtime, reverse=True):
        candidate = Candidate(folder)
        try:
            lineage, result = candidate.read("lineage", Lineage), candidate.read("training", TrainResult)
        except LakeError:
            continue
        computed = result.versions.get("device")
        same_device = computed is None or machine.gpu is None or computed == machine.gpu.name
        if lineage.base_sha256 == digest and result.method == spec.method and same_device and result.tokens_per_s > 0:
            return Speed(tokens_per_s=result.tokens_per_s, how="earlier run", note=candidate.id, peak_mb=result.peak_mb)
    return None


def _notes(version: DatasetVersion, spec: TrainingSpec, speed: Speed) -> list[str]:
    found = []
    if speed.peak_mb:
        found.append(f"a run of that kind peaked at {speed.peak_mb / 1000:.1f} GB")
    if spec.preference:
        pairs = sum(p.split == "train" for p in version.pairs)
        enough = "" if pairs >= spec.preference.min_pairs else ", which are fewer than min_pairs: it is left out"
        found.append(f"time and memory of the preference stage are not in it ({pairs:,} pairs{enough})")
    if spec.pretrain:
        found.append("the time of pre-training on the team's text is not in it, its memory is")
    return found


def dataset_for(place: Workplace, name: str) -> Path:
    """The dataset of that name, or the agent's newest. NotEnoughData, LakeError where there is none."""
    folder = place.settings.datasets_dir
    if name:
        return datasets.find(folder, name)
    found = [p for p in folder.glob(f"{place.agent_name}-*.json") if datasets.is_dataset(p)]
    found = [p for p in found if datasets.load(p).agent == place.agent_name]
    if not found:
        raise NotEnoughData(
            f"{place.agent_name} has no dataset yet; `pawl dataset prepare {place.agent_name}` makes one"
        )
    return max(found, key=lambda p: p.stat().st_mtime)
