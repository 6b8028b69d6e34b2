"""A version leaves: as an adapter, a merged model or a GGUF file; with its card, and checked before it is there."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from pawl.curation.dataset import DatasetVersion, Example, load
from pawl.errors import LakeError, ModelFileError, PawlError
from pawl.evaluation.report import Comparison
from pawl.improvement.export_card import BaseModel, Card, Evidence, card, readme, without_paths
from pawl.improvement.placing import fetch
from pawl.improvement.steps import OnProgress
from pawl.improvement.workplace import Candidate, Workplace
from pawl.lake.journal import sync_folder
from pawl.registry.adapter_hash import ADAPTER_FILES, adapter_sha256
from pawl.registry.port import Version
from pawl.training.modelfile import chatml_of, modelfile
from pawl.training.result import TrainResult
from pawl.training.round_trip import PROMPTS, TOKENS, Quantize, RoundTrip, To, problem_of
from pawl.training.run_folder import write_whole

if TYPE_CHECKING:
    from pawl.training.export_transformers import Answer

_MARGIN = 64 << 20  # bytes for tokenizer, card and what file systems take


class Exported(msgspec.Struct, frozen=True):
    """What was written."""

    folder: str
    bytes: int
    card: Card


def export(
    place: Workplace, which: str, to: To, out: Path, on_progress: OnProgress, quantize: Quantize = "q8_0"
) -> Exported:
    """Write version `which` (its number, or an alias such as champion) to the new folder `out`; whole or not at all.

    A merged model and a GGUF file are loaded again and asked: they must answer as base and adapter do
    (`round_trip.problem_of`). `quantize` is for GGUF only.

    PawlError where there is no such version or `out` is taken, ModelFileError where the adapter is not sound or the
    export does not answer as it should, ResourceError where the disk is too small.
    """
    from pawl.training.adapter_check import check_adapter
    from pawl.training.base_model_transformers import base_name, base_sha256, prepare_base
    from pawl.training.licences import licence_of

    version = version_of(place, which)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise PawlError(f"{out} is there already; name a new folder: --out DIR")
    on_progress("fetching", 0, 1, version.adapter)
    adapter = _adapter(place, version)
    base_dir = prepare_base(place.fleet.base_model.source, place.settings.models_dir)
    check_adapter(adapter, base_dir, hot=False)
    evidence = evidence_of(place, version)
    source = place.fleet.base_model
    base = BaseModel(base_name(base_dir), licence_of(source.source, base_dir, source.licence), base_sha256(base_dir))
    _need_disk(out, base_dir, adapter, to, quantize)
    with _new_folder(out) as part:
        trip = None
        if to == "adapter":
            _copy_adapter(adapter, part, base.name)
            weights = "as trained"
        else:
            samples = _samples(place, version, evidence.dataset)
            trip = _Convert(base_dir, version.adapter, on_progress).run(
                adapter, samples, part, to, quantize, place.fleet.base_model.max_model_len
            )
            weights = "bfloat16" if to == "merged" else quantize
        on_progress("writing the card", 0, 1, "")
        files = {p.name: _sha256(p) for p in sorted(part.iterdir())}
        day = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())
        made = card(version, to, weights, day, base, evidence, trip, files)
        encoded = msgspec.json.format(msgspec.json.encode(made))
        write_whole(part / "card.json", encoded)
        write_whole(part / "README.md", readme(made).encode())
    size = sum(p.stat().st_size for p in out.iterdir())
    on_progress("done", 1, 1, "")
    return Exported(str(out), size, made)


def version_of(place: Workplace, which: str) -> Version:
    """The version of that number or alias. PawlError where there is none."""
    if which.isdigit():
        return place.registry.version(place.agent_name, which)
    found = place.registry.by_alias(place.agent_name, which)
    if found is None:
        numbers = ", ".join(v.number for v in place.registry.versions(place.agent_name)) or "none"
        raise PawlError(
            f"no version of {place.agent_name} has the alias {which!r} (registered: {numbers}); --version NUMBER"
        )
    return found


def evidence_of(place: Workplace, version: Version) -> Evidence:
    """What this machine keeps of the version's making."""
    folder = place.settings.home / "candidates" / version.tags.get("candidate", "-")
    candidate = Candidate(folder)
    dataset: DatasetVersion | None = None
    if name := version.tags.get("dataset"):
        try:
            dataset = load(place.settings.datasets_dir / name)
        except LakeError:
            dataset = None  # erased, or on another machine
    return Evidence(
        dataset=dataset,
        comparison=candidate.read("comparison", Comparison) if candidate.has("comparison") else None,
        trained=candidate.read("training", TrainResult) if candidate.has("training") else None,
        spec=candidate.read("spec", dict) if candidate.has("spec") else None,
    )


class _Convert:
    """Merging, converting and the round trip of one export."""

    def __init__(self, base_dir: Path, name: str, on_progress: OnProgress) -> None:
        self._base, self._name, self._tell = base_dir, name, on_progress

    def run(
        self, adapter: Path, samples: list[Example], part: Path, to: To, quantize: Quantize, context: int
    ) -> RoundTrip:
        from pawl.training import export_peft, export_transformers

        tokens = export_transformers.tokenizer(self._base)
        prompts = [export_transformers.prompt_of(tokens, e.messages) for e in samples]
        kept = [(e, p) for e, p in zip(samples, prompts, strict=True) if 0 < len(p) <= context - TOKENS][:PROMPTS]
        self._tell("loading the base model", 0, 1, "")
        model = export_peft.with_adapter(self._base, adapter)
        ends = export_transformers.ends_of(model, tokens)
        answers: list[Answer] = []
        for _, prompt in kept:
            self._tell("asking the original", len(answers), len(kept), "")
            answers.append(export_transformers.answer(model, prompt, TOKENS, ends))
        self._tell("merging", 0, 1, "")
        if to == "merged":
            export_peft.write_merged(model, self._base, part, self._name, bfloat16=True)
            file = None
        else:
            file = f"{self._name}-{quantize}.gguf"
            with tempfile.TemporaryDirectory(prefix=".merged-", dir=part) as merged:
                # From float32: by way of bfloat16 the q8_0 file of a 135M model was 7 times as far from the original
                # (0.0081 nats a token, and 0.0012), the f16 file 10,000 times.
                export_peft.write_merged(model, self._base, Path(merged), self._name, bfloat16=quantize == "bf16")
                del model
                export_transformers.forget()
                self._convert(Path(merged), part / file, quantize)
            self._modelfile(tokens, part, file, context)
        model = None
        export_transformers.forget()
        return self._round_trip(part, file, [e for e, _ in kept], answers, lossy=to == "gguf" and quantize == "q8_0")

    def _convert(self, merged: Path, target: Path, quantize: Quantize) -> None:
        from pawl.training import export_gguf

        self._tell(f"converting to {quantize}", 0, 1, "")
        export_gguf.convert(merged, target, quantize, self._name)

    def _modelfile(self, tokens: object, part: Path, file: str, context: int) -> None:
        from pawl.training.export_transformers import end_texts, rendering

        about = (f"{self._name}: ollama create {self._name} -f Modelfile",)
        text = modelfile(file, chatml_of(rendering(tokens)), end_texts(tokens), context, about)
        write_whole(part / "Modelfile", text.encode())

    def _round_trip(
        self, part: Path, file: str | None, samples: list[Example], answers: list[Answer], *, lossy: bool
    ) -> RoundTrip:
        from pawl.training import export_transformers

        self._tell("loading the export again", 0, 1, "")
        tokens = export_transformers.tokenizer(part, file)
        asked = zip(samples, answers, strict=True)
        same = sum(export_transformers.prompt_of(tokens, e.messages) == a.prompt for e, a in asked)
        model = export_transformers.load(part, file)
        trip = export_transformers.compare(
            model, answers, same, lambda done: self._tell("asking the export", done, len(answers), "")
        )
        problem = problem_of(trip, lossy=lossy)
        if problem:
            raise ModelFileError(
                f"the export of {self._name} does not answer as the original: {problem}. Nothing was written; "
                "export the adapter itself (--to adapter), or another form"
            )
        return trip


def _adapter(place: Workplace, version: Version) -> Path:
    """The version's own files, by its registered hash."""
    kept = Candidate(place.settings.home / "candidates" / version.tags.get("candidate", "-")).adapter
    if kept.is_dir() and all((kept / n).is_file() for n in ADAPTER_FILES) and adapter_sha256(kept) == version.sha256:
        return kept
    folder = fetch(place, version)
    if adapter_sha256(folder) != version.sha256:
        raise ModelFileError(
            f"{folder} does not have the registered hash of {version.adapter}; delete the folder and try again"
        )
    return folder


def _samples(place: Workplace, version: Version, dataset: DatasetVersion | None) -> list[Example]:
    """Prompts that it never learnt from, where the dataset has some; more than are asked: some may be too long."""
    if dataset is None or not dataset.examples:
        raise PawlError(
            f"the dataset {version.tags.get('dataset', '')} of version {version.number} is not on this machine: its "
            "prompts check the export. Export where it was trained, or --to adapter"
        )
    order = {"validation": 0, "test": 1, "train": 2}
    return sorted(dataset.examples, key=lambda e: order[e.split])[: 4 * PROMPTS]


def _need_disk(out: Path, base_dir: Path, adapter: Path, to: To, quantize: Quantize) -> None:
    from pawl.training.adapter_tensors import parameters
    from pawl.training.base_model_transformers import need_disk

    if to == "adapter":
        needed = sum(p.stat().st_size for p in adapter.iterdir() if p.is_file())
    else:
        # Written beside the GGUF file for the converter: bfloat16 for bf16, else float32.
        between = 0 if to == "merged" else 2 if quantize == "bf16" else 4
        final = 1.1 if to == "gguf" and quantize == "q8_0" else 2.0
        needed = int(parameters(base_dir) * (between + final))
    need_disk(out.resolve().parent, needed + _MARGIN, "the export")


def _copy_adapter(adapter: Path, part: Path, base: str) -> None:
    for name in ADAPTER_FILES:
        shutil.copyfile(adapter / name, part / name)
    config = msgspec.json.decode((part / "adapter_config.json").read_bytes())
    named = config.get("base_model_name_or_path")
    if named != without_paths(named):  # only then: as it is, it has the registered hash
        config["base_model_name_or_path"] = base
        write_whole(part / "adapter_config.json", msgspec.json.format(msgspec.json.encode(config, order="sorted")))


@contextmanager
def _new_folder(out: Path) -> Iterator[Path]:
    """A folder beside `out` that takes its name when everything in it is on the disk, and goes when it failed."""
    parent = out.resolve().parent
    parent.mkdir(parents=True, exist_ok=True)
    part = Path(tempfile.mkdtemp(prefix=f".{out.name}-", suffix=".part", dir=parent))
    try:
        yield part
        for path in part.iterdir():
            with path.open("rb") as file:
                os.fsync(file.fileno())
        part.chmod(0o755)
        part.replace(out)
        sync_folder(parent)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
