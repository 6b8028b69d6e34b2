"""Adapters of the registry on this disk and on the serving cluster."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from pawl.bootstrap import current_route
from pawl.improvement.workplace import Workplace
from pawl.registry.port import Version
from pawl.serving import vllm_adapters


def fetch(place: Workplace, version: Version) -> Path:
    """The version's adapter in its folder on this disk, whole or not at all: what the registry gives is checked beside
    that folder and then takes its name. Several processes may fetch one version."""
    from pawl.errors import ModelFileError
    from pawl.registry.adapter_hash import adapter_sha256
    from pawl.training.adapter_check import base_at_hand, check_adapter

    folder = place.settings.adapters_dir / version.adapter
    if folder.exists():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    part = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", suffix=".part", dir=folder.parent))
    try:
        found = place.registry.download(version, part)
        if adapter_sha256(found) != version.sha256:
            raise ModelFileError(f"{version.adapter}: the registry's files do not have the registered hash; not loaded")
        check_adapter(found, base_at_hand(place.fleet.base_model, place.settings.models_dir))
        found.chmod(0o755)
        try:
            found.rename(folder)
        except OSError:
            if not folder.exists():  # else another process was first, with the same files
                raise
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return folder


def present(place: Workplace, version: Version) -> Path:
    """The version's adapter in its folder on disk, loaded and verified on the cluster under its own name."""
    folder = fetch(place, version)
    _load(place, {version.adapter: str(folder.resolve())})
    return folder


def restore(place: Workplace) -> None:
    """Load whatever a route or an open rollout names and the cluster has forgotten (a restart does that)."""
    wanted = {}
    route = current_route(place.fleet, place.control, place.agent)
    for arm in (route.champion, route.challenger, *route.shadows):
        folder = place.settings.adapters_dir / arm.name if arm else None
        if arm and arm.kind == "local" and folder and folder.exists():
            wanted[arm.name] = str(folder.resolve())
    if wanted:
        _load(place, wanted)


def _load(place: Workplace, wanted: dict[str, str]) -> None:
    from pawl.training.adapter_check import base_at_hand

    base = base_at_hand(place.fleet.base_model, place.settings.models_dir)
    vllm_adapters.reconcile(place.settings.vllm_url, wanted, base)
