"""Whether training can go on from an adapter: its rank, its kind and its layers must be those of the spec."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pawl.errors import ModelFileError
from pawl.fleet.training import TrainingSpec
from pawl.training import adapter_tensors
from pawl.training.adapter_check import CONFIG
from pawl.training.run_folder import WEIGHTS

_SHOWN = 3  # layers that are named


def why_anew(adapter: Path, spec: TrainingSpec, base_dir: Path) -> str:
    """What keeps training by `spec` from continuing the adapter in that folder; empty where it can.

    ModelFileError where the adapter cannot be read.
    """
    try:
        config = json.loads((adapter / CONFIG).read_text())
        layers = adapter_tensors.layers_of(adapter_tensors.header(adapter / WEIGHTS))
    except (OSError, ValueError) as e:
        raise ModelFileError(
            f"start adapter {adapter} cannot be read ({e}); fetch it from the registry again, or set "
            "training.start: base"
        ) from e
    return misfit(config, layers, spec, _linear_layers(base_dir))


def misfit(config: Mapping[str, Any], layers: set[str], spec: TrainingSpec, linear: set[str]) -> str:
    """How an adapter differs from what the spec would train; empty where it does not (pure).

    `layers`: those that the adapter changes. `linear`: the base model's, its output head apart; empty where they are
    not known, and then layers are not compared. Alpha and scaling do not count: they are rescaled.
    """
    wanted: dict[str, object] = {"rank": spec.rank, "dora": spec.method == "dora"}
    has = {"rank": config.get("r"), "dora": bool(config.get("use_dora"))}
    found = [f"{name} {has[name]}, the spec says {wanted[name]}" for name in wanted if has[name] != wanted[name]]
    targets = targets_of(spec, linear)
    if targets and targets != layers:
        more, less = sorted(layers - targets), sorted(targets - layers)
        words = [f"{len(less)} layers that the spec names are not in it ({_some(less)})"] if less else []
        words += [f"{len(more)} layers in it are not in the spec ({_some(more)})"] if more else []
        found.append("other target_modules: " + ", ".join(words))
    return "; ".join(found)


def targets_of(spec: TrainingSpec, linear: Iterable[str]) -> set[str]:
    """The layers of a base model that `training.target_modules` names, as peft reads it (pure)."""
    wanted = spec.target_modules
    if wanted == "all-linear":
        return set(linear)
    if isinstance(wanted, str):
        return {n for n in linear if re.fullmatch(wanted, n)}
    return {n for n in linear if any(n == w or n.endswith(f".{w}") for w in wanted)}


def names_of(layers: set[str], modules: Iterable[str]) -> list[str]:
    """The shortest list by which peft and vLLM find exactly these of a model's modules: last names, or whole ones."""
    ends = {n.rpartition(".")[2] for n in layers}
    found = {n for n in modules if n.rpartition(".")[2] in ends}
    return sorted(ends if found == layers else layers)


def _linear_layers(base_dir: Path) -> set[str]:
    from pawl.training.linear_layers_transformers import architecture_layers

    try:
        return {n for n in architecture_layers(base_dir) if not n.endswith("lm_head")}
    except ModelFileError:
        return set()


def _some(names: list[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")
