"""A training run's folder: what is in it after a kill, and what of it may be used."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import msgspec

from pawl.errors import ModelFileError
from pawl.fleet.training import TrainingSpec
from pawl.training.base_model_transformers import base_sha256, safetensors_problem
from pawl.training.result import TrainResult

WEIGHTS = "adapter_model.safetensors"


def run_key(fingerprint: str, spec: TrainingSpec, base_dir: Path, start: Path | None) -> str:
    """What makes two runs the same: data, spec, base weights, start weights. ModelFileError without start weights."""
    digest = hashlib.sha256(f"{fingerprint}\0{spec.model_dump_json()}\0{base_sha256(base_dir)}".encode())
    if start is not None:
        try:
            digest.update((start / WEIGHTS).read_bytes())
        except OSError as e:
            raise ModelFileError(
                f"start adapter {start} has no {WEIGHTS}; fetch it from the registry again, or set training.start: base"
            ) from e
    return digest.hexdigest()


def prepare_folder(out_dir: Path, key: str) -> TrainResult | None:
    """Empties the folder of another run's files; the result where this very run is already finished."""
    out_dir.mkdir(parents=True, exist_ok=True)
    mark = out_dir / "run.key"
    if mark.exists() and mark.read_text() == key:
        try:
            result = msgspec.json.decode((out_dir / "result.json").read_bytes(), type=TrainResult)
        except (OSError, msgspec.DecodeError):
            return None
        weights = [*(out_dir / "adapter").glob("*.safetensors")]
        whole = bool(weights) and all(safetensors_problem(w) is None for w in weights)
        return msgspec.structs.replace(result, adapter_dir=str(out_dir / "adapter")) if whole else None
    for stale in ("stages", "adapter", "merged"):
        shutil.rmtree(out_dir / stale, ignore_errors=True)
    (out_dir / "result.json").unlink(missing_ok=True)
    write_whole(mark, key.encode())
    return None


def last_checkpoint(folder: Path) -> Path | None:
    """The newest whole checkpoint; one that a kill cut off in the middle of writing is deleted."""
    found = [(int(p.name.rpartition("-")[2]), p) for p in folder.glob("checkpoint-*") if p.is_dir()]
    for _, path in sorted(found, reverse=True):
        try:
            # The trainer writes this file last.
            json.loads((path / "trainer_state.json").read_text())
            if safetensors_problem(path / WEIGHTS) is None:
                return path
        except (OSError, ValueError):
            pass
        shutil.rmtree(path, ignore_errors=True)
    return None


def write_whole(path: Path, content: bytes) -> None:
    """Replace a file in one step."""
    part = path.with_name(f".{path.name}.part")
    part.write_bytes(content)
    part.replace(path)
