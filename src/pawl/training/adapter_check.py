"""An adapter that comes from elsewhere is looked at before anything loads it: files, config, shapes, values."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from pawl.errors import ModelFileError
from pawl.fleet.spec import BaseModelSpec
from pawl.training import adapter_tensors
from pawl.training.adapter_tensors import Linear, Tensor
from pawl.training.base_model_transformers import WHEEL, base_name, metadata_version
from pawl.training.run_folder import WEIGHTS, write_whole

CONFIG = "adapter_config.json"
MOST_RANK = 256
_NOT_SERVED = ("lm_head", "embed_tokens")  # see `serving.vllm_cpu_lora`
_RULES = 2  # raised when the check learns to see more: what was looked at before is looked at again
_SHOWN = 20  # problems that are told one by one

_CODE = {".py", ".so", ".sh", ".js", ".whl", ".dll", ".exe"}
_PICKLED = {".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".joblib", ".npy", ".npz", ".h5", ".msgpack"}
_HARMLESS = {".json", ".md", ".txt", ".jinja", ".model", ".yaml", ".yml", ".html"}
_HARMLESS_NAMES = {"LICENSE", "LICENCE", "NOTICE", "MLmodel", ".gitattributes"}
_MOST_BESIDE = 64 << 20  # bytes of everything but the weights: a tokenizer has about 20 MB at most
_MOST_CONFIG = 1 << 20

# Keys of peft's LoraConfig that a plain LoRA may give values to; the rest of them must be empty.
_FREE = {
    "task_type", "peft_type", "peft_version", "base_model_name_or_path", "revision", "inference_mode", "r",
    "target_modules", "exclude_modules", "lora_alpha", "lora_dropout", "bias", "use_rslora", "init_lora_weights",
    "layers_to_transform", "layers_pattern", "rank_pattern", "alpha_pattern", "use_dora", "megatron_core",
    "qalora_group_size", "ensure_weight_tying", "runtime_config",
}  # fmt: skip
_EMPTY = {
    "auto_mapping", "fan_in_fan_out", "modules_to_save", "megatron_config", "trainable_token_indices", "loftq_config",
    "eva_config", "corda_config", "lora_ga_config", "velora_config", "alora_invocation_tokens", "use_qalora",
    "monteclora_config", "layer_replication", "lora_bias", "target_parameters", "use_bdlora", "arrow_config",
    "kasa_config",
}  # fmt: skip
# Others (pissa, olora, corda, loftq) change the base model's weights when peft loads the adapter.
_INITS = (True, False, None, "gaussian", "orthogonal", "eva")


class AdapterFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What a checked adapter is."""

    base: str  # the model that it names
    rank: int
    alpha: float
    layers: int
    parameters: int
    bytes: int  # of its weights
    dtypes: tuple[str, ...]
    shapes_checked: bool  # whether the base model was at hand


def check_adapter(folder: Path, base_dir: Path | None, *, hot: bool = True) -> AdapterFacts:
    """Look at an adapter before it is loaded; ModelFileError lists every problem at once.

    Only safetensors and plain text may be in the folder. The weights' header must be whole, their size within what
    the rank allows, each tensor a LoRA part of one of the base's linear layers with fitting shape, and every value
    finite. The config must be a plain LoRA's, made for this base. `base_dir` None: without the base's names and
    shapes. `hot`: it is for a running vLLM, which knows no DoRA.
    """
    problems = _file_problems(folder)
    config, told = _read_config(folder / CONFIG)
    problems += told
    if config is not None:
        problems += config_problems(config, base_name(base_dir) if base_dir else None, hot=hot)
    weights = folder / WEIGHTS
    rank = _rank(config or {})
    tensors: dict[str, Tensor] = {}
    if weights.is_file():
        try:
            linear = adapter_tensors.linear_layers(base_dir) if base_dir else None
            too_large = _too_large(weights.stat().st_size, linear, config or {})
            if too_large:
                problems.append(too_large)
            else:
                tensors = adapter_tensors.header(weights)
                layers = adapter_tensors.layers_of(tensors)
                if base_dir and linear is not None and layers and not layers & linear.keys():
                    linear = _by_architecture(base_dir) or linear
                problems += _fits(tensors, linear, config)
                problems += [f"{name} is of the {n} layer, which is not adapted when served" for name in sorted(layers)
                             for n in _NOT_SERVED if hot and name.endswith(n)]  # fmt: skip
                broken = adapter_tensors.not_finite(weights, tensors)
                problems += [f"{name} holds values that are infinite or not a number" for name in broken]
        except ModelFileError as e:
            problems.append(str(e))
    if problems or config is None or rank is None:
        shown = problems[:_SHOWN] + ([f"and {len(problems) - _SHOWN} more"] if len(problems) > _SHOWN else [])
        listed = "\n".join(f"  - {p}" for p in shown)
        raise ModelFileError(
            f"the adapter in {folder} is not loaded, {len(problems)} problem(s):\n{listed}\n"
            "Take an adapter that was trained for this base model, as peft saves it with safetensors."
        )
    return AdapterFacts(
        base=str(config.get("base_model_name_or_path") or ""),
        rank=rank,
        alpha=float(config.get("lora_alpha", 8)),
        layers=len(adapter_tensors.layers_of(tensors)),
        parameters=sum(math.prod(t.shape) for t in tensors.values()),
        bytes=weights.stat().st_size,
        dtypes=tuple(sorted({t.dtype for t in tensors.values()})),
        shapes_checked=base_dir is not None,
    )


def check_once(folder: Path, base_dir: Path | None, *, hot: bool = True) -> None:
    """`check_adapter`, and nothing where the same files passed it before: by their names, sizes and times.

    What passed is remembered beside the folder, never in it, where the adapter itself could bring it along.
    """
    mark = folder.parent / ".checked" / f"{folder.name}.json"
    stamp = _stamp(folder, base_dir, hot)
    try:
        if mark.read_bytes() == stamp:
            return
    except OSError:
        pass
    check_adapter(folder, base_dir, hot=hot)
    try:
        mark.parent.mkdir(exist_ok=True)
        write_whole(mark, stamp)
    except OSError:
        pass  # a place that cannot be written to is looked at each time


def base_at_hand(base: BaseModelSpec, models_dir: Path) -> Path | None:
    """The base model's folder where this machine has it already; nothing is made or downloaded."""
    if base.source == WHEEL:
        try:
            folder = models_dir / f"{WHEEL}-{metadata_version()}-bf16"
        except ModelFileError:
            return None
    else:
        local = Path(base.source).expanduser()
        folder = local if local.is_dir() else models_dir / base.source.replace("/", "--")
    return folder if folder.is_dir() else None


def config_problems(config: Mapping[str, Any], base: str | None, *, hot: bool) -> list[str]:
    """What is wrong with an adapter_config.json for the base of that name (pure)."""
    problems = [f"{CONFIG}: unknown key {k!r}" for k in sorted(config.keys() - _FREE - _EMPTY)]
    if config.get("peft_type") != "LORA":
        problems.append(f"{CONFIG}: peft_type is {config.get('peft_type')!r}, only LORA is taken")
    if config.get("task_type") not in (None, "CAUSAL_LM"):
        problems.append(f"{CONFIG}: task_type is {config.get('task_type')!r}, not CAUSAL_LM")
    filled = [k for k in sorted(_EMPTY & config.keys()) if config[k]]
    problems += [f"{CONFIG}: {k} must be empty: a plain LoRA brings nothing but its own weights" for k in filled]
    named = config.get("base_model_name_or_path")
    if base is not None and not same_model(named, base):
        problems.append(f"{CONFIG}: it was made for {named!r}, the fleet's base model is {base!r}")
    if _rank(config) is None:
        problems.append(f"{CONFIG}: r is {config.get('r')!r}, not a whole number from 1 to {MOST_RANK}")
    alpha = config.get("lora_alpha", 8)
    if not _number(alpha) or not 0 < alpha < math.inf:
        problems.append(f"{CONFIG}: lora_alpha is {alpha!r}, not a positive number")
    if config.get("bias", "none") != "none":
        problems.append(f"{CONFIG}: bias is {config['bias']!r}, only 'none' is served")
    if config.get("init_lora_weights", True) not in _INITS:
        problems.append(
            f"{CONFIG}: init_lora_weights {config['init_lora_weights']!r} changes the base model's weights; convert it "
            "to a plain LoRA with peft first"
        )
    if config.get("use_dora") and hot:
        problems.append(f"{CONFIG}: use_dora: vLLM cannot load DoRA into a running server; serve it merged")
    # peft takes a string as a regular expression, which a stranger could make hang.
    for key in ("target_modules", "exclude_modules"):
        value = config.get(key)
        if value is not None and value != "all-linear" and not _names(value):
            problems.append(f"{CONFIG}: {key} must be a list of layer names")
    if not config.get("target_modules"):
        problems.append(f"{CONFIG}: target_modules names no layer")
    only = config.get("layers_to_transform")
    if only is not None and not all(type(i) is int for i in (only if isinstance(only, list) else [only])):
        problems.append(f"{CONFIG}: layers_to_transform must hold layers' numbers")
    for key in ("rank_pattern", "alpha_pattern"):
        pattern = config.get(key) or {}
        if not isinstance(pattern, dict) or not all(re.fullmatch(r"[\w.]+", k) for k in pattern):
            problems.append(f"{CONFIG}: {key} must map plain layer names")
        elif not all(_number(v) and 0 < v < math.inf for v in pattern.values()):
            problems.append(f"{CONFIG}: {key} must hold positive numbers")
        elif key == "rank_pattern" and not all(type(v) is int and v <= MOST_RANK for v in pattern.values()):
            problems.append(f"{CONFIG}: rank_pattern must hold whole numbers up to {MOST_RANK}")
    return problems


def same_model(named: Any, base: str) -> bool:
    """Whether two names mean one model (pure). An organisation or a path that only one of them has does not count."""
    if not isinstance(named, str) or not named.strip():
        return False
    one, two = (n.replace("\\", "/").rstrip("/").casefold() for n in (named, base))
    full = re.compile(r"[^/.~][^/]*/[^/]+")
    if full.fullmatch(one) and full.fullmatch(two):
        return one == two
    return one.rpartition("/")[2] == two.rpartition("/")[2]


def targeted(config: Mapping[str, Any], layers: set[str]) -> set[str] | None:
    """The layers that a config targets, as peft chooses them; None where only peft can tell (pure)."""
    targets, excluded = config.get("target_modules"), config.get("exclude_modules") or []
    if not _names(targets) or not isinstance(excluded, list) or config.get("layers_pattern"):
        return None
    assert isinstance(targets, list)
    only = config.get("layers_to_transform")
    chosen = None if only is None else {i for i in (only if isinstance(only, list) else [only]) if type(i) is int}

    def ends(layer: str, names: list[str]) -> bool:
        return any(layer == n or layer.endswith(f".{n}") for n in names)

    def index(layer: str) -> int:
        return next((int(p) for p in reversed(layer.split(".")) if p.isdigit()), -1)

    found = {n for n in layers if ends(n, targets) and not ends(n, excluded)}
    return {n for n in found if chosen is None or index(n) in chosen}


def _fits(tensors: dict[str, Tensor], linear: dict[str, Linear] | None, config: dict[str, Any] | None) -> list[str]:
    rank = _rank(config or {})
    if config is None or rank is None:
        return []
    pattern = config.get("rank_pattern") or {}
    ranks = {k: v for k, v in pattern.items() if type(v) is int} if isinstance(pattern, dict) else {}
    wanted = targeted(config, set(linear)) if linear is not None else None
    return adapter_tensors.fit_problems(tensors, linear, wanted, ranks, rank, dora=bool(config.get("use_dora")))


def _too_large(size: int, linear: Mapping[str, Linear] | None, config: Mapping[str, Any]) -> str | None:
    """More than float32 weights of the largest rank on all linear layers of the base can have."""
    if not linear:
        return None
    pattern = config.get("rank_pattern")
    ranks = [v for v in pattern.values() if type(v) is int] if isinstance(pattern, dict) else []
    rank = min(MOST_RANK, max([_rank(config) or MOST_RANK, *ranks]))
    most = 4 * sum(rank * (n.inputs + n.outputs) + n.outputs for n in linear.values()) + (1 << 20)
    if size <= most:
        return None
    return f"{WEIGHTS} has {size / 1e6:.0f} MB; rank {rank} on this base model has {most / 1e6:.0f} MB at most"


def _by_architecture(base_dir: Path) -> dict[str, Linear]:
    """None of the names was found in the weights: quantised ones hide their layers, others are renamed when loaded."""
    from pawl.training.linear_layers_transformers import architecture_layers

    try:
        return architecture_layers(base_dir)
    except ModelFileError:
        return {}


def _file_problems(folder: Path) -> list[str]:
    if not folder.is_dir():
        return [f"{folder} is no folder"]
    problems, beside = [], 0
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_symlink() and not path.resolve().is_relative_to(folder.resolve()):
            problems.append(f"{name} is a link to outside the folder; copy the file itself")
        elif path.is_dir() or name == WEIGHTS:
            continue
        elif path.suffix.lower() in _PICKLED:
            problems.append(f"{name} may hold pickled code; only safetensors are taken: remove it")
        elif path.suffix.lower() in _CODE:
            problems.append(f"{name} is code; an adapter brings none: remove it")
        elif not path.is_file() or (path.suffix.lower() not in _HARMLESS and path.name not in _HARMLESS_NAMES):
            problems.append(f"{name} does not belong to an adapter: remove it")
        else:
            beside += path.stat().st_size
            if path.name in ("config.json", "tokenizer_config.json") and "auto_map" in _keys(path):
                problems.append(f"{name} names code to load (auto_map); an adapter brings none")
    if beside > _MOST_BESIDE:
        problems.append(f"{beside / 1e6:.0f} MB lie beside the weights, more than {_MOST_BESIDE / 1e6:.0f}")
    if not (folder / WEIGHTS).is_file():
        problems.append(f"{WEIGHTS} is missing")
    return problems


def _read_config(path: Path) -> tuple[dict[str, Any] | None, list[str]]:
    try:
        if path.stat().st_size > _MOST_CONFIG:
            return None, [f"{CONFIG} has {path.stat().st_size / 1e6:.0f} MB"]
        found = json.loads(path.read_text())
    except FileNotFoundError:
        return None, [f"{CONFIG} is missing"]
    except (OSError, ValueError, RecursionError) as e:
        return None, [f"{CONFIG} cannot be read ({e})"]
    return (found, []) if isinstance(found, dict) else (None, [f"{CONFIG} is no JSON object"])


def _keys(path: Path) -> set[str]:
    try:
        found = json.loads(path.read_text()) if path.stat().st_size <= _MOST_CONFIG else {}
    except (OSError, ValueError, RecursionError):
        return set()
    return set(found) if isinstance(found, dict) else set()


def _stamp(folder: Path, base_dir: Path | None, hot: bool) -> bytes:
    files = [p for p in sorted(folder.rglob("*")) if p.is_file()]
    listed = [[p.relative_to(folder).as_posix(), p.stat().st_size, p.stat().st_mtime_ns] for p in files]
    known = [base_dir.name, (base_dir / "config.json").stat().st_mtime_ns] if base_dir else None
    return msgspec.json.encode({"rules": _RULES, "hot": hot, "base": known, "files": listed})


def _rank(config: Mapping[str, Any]) -> int | None:
    r = config.get("r", 8)
    return r if type(r) is int and 1 <= r <= MOST_RANK else None


def _number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _names(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(v, str) for v in value)
