"""A champion served merged, on a replica of its own, or as an adapter on the cluster; from one to the other and back.

An adapter shares a replica with all others and costs time in every layer; a merged model costs a replica. Rollouts work
across the two: their arms name the upstream that each is served by.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from pathlib import Path

import msgspec

from pawl.bootstrap import current_route
from pawl.errors import ConfigError, NotAllowed, ServerNotUp
from pawl.fleet.reach import bases
from pawl.improvement.placing import place_adapter, release
from pawl.improvement.workplace import Workplace
from pawl.rollout.control import Key
from pawl.rollout.route import Arm, Route
from pawl.serving import vllm_adapters

_MARK = "-merged"


def merged_name(adapter: str) -> str:
    """The merged model's name, never used for other weights: the adapter's, with the mark before its hash (pure)."""
    stem, _, sha = adapter.rpartition("-")
    return f"{stem}{_MARK}-{sha}" if stem else adapter + _MARK


def adapter_name(merged: str) -> str:
    """The other way round (pure); a name that is no merged model's stays."""
    stem, mark, rest = merged.rpartition(_MARK)
    return stem + rest if mark else merged


def write_merged_champion(place: Workplace) -> Path:
    """The champion's adapter merged into the base model, in a folder that is whole or absent; bfloat16.

    NotAllowed where the champion is no adapter of the cluster; ModelFileError where the two do not fit.
    """
    from pawl.training.adapter_check import check_once
    from pawl.training.base_model_transformers import prepare_base
    from pawl.training.export_peft import with_adapter, write_merged

    adapter = _champion_adapter(place)
    name = merged_name(adapter)
    folder = place.settings.home / "merged" / name
    if folder.exists():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    part = Path(tempfile.mkdtemp(prefix=f".{name}-", suffix=".part", dir=folder.parent))
    try:
        base = prepare_base(place.fleet.base_model.source, place.settings.models_dir)
        check_once(place.settings.adapters_dir / adapter, base)
        model = with_adapter(base, place.settings.adapters_dir / adapter)
        write_merged(model, base, part, name, bfloat16=True)
        part.chmod(0o755)
        part.rename(folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return folder


def command(place: Workplace, folder: Path, port: int) -> list[str]:
    """The command line of the replica that serves that folder."""
    from pawl.serving import vllm_process

    return vllm_process.command(
        base_dir=folder,
        served_name=folder.name,
        host=place.settings.host,
        port=port,
        max_model_len=place.fleet.base_model.max_model_len,
        max_lora_rank=None,
    )


def serve_merged(place: Workplace, key: Key) -> Route:
    """Send the champion's share to its merged model, after every server of that upstream answered with it.

    Raises:
        ConfigError: the agent's spec names no upstream for it.
        NotAllowed: a rollout is open, the key's role may not, or the champion is no adapter.
        ServerNotUp: the merged model does not answer.
        StaleWrite: the route changed meanwhile.
    """
    upstream = place.agent.serving.upstream
    if upstream is None:
        raise ConfigError(
            f"agent {place.agent_name}",
            ["to serve its champion merged, give serving: {champion: merged, upstream: NAME}"],
        )
    name = merged_name(_champion_adapter(place))
    for base in bases(place.fleet.upstreams[upstream], place.settings.places):
        _answers(base.removesuffix("/v1"), name)
    return _switch(place, Arm(name, upstream, name, "local"), key)


def serve_adapter(place: Workplace, key: Key) -> Route:
    """Send the champion's share to its adapter on the cluster again, after every replica answered with it."""
    champion = current_route(place.fleet, place.control, place.agent).champion
    name = adapter_name(champion.name)
    if name == champion.name:
        raise NotAllowed(f"{place.agent_name}'s champion {name} is not served merged")
    place_adapter(place, name, place.settings.adapters_dir / name, f"champion of {place.agent_name} to be")
    made = _switch(place, Arm(name, place.fleet.local_upstream, name, "local"), key)
    release(place, name)
    return made


def _champion_adapter(place: Workplace) -> str:
    champion = current_route(place.fleet, place.control, place.agent).champion
    folder = place.settings.adapters_dir / champion.name
    if champion.upstream != place.fleet.local_upstream or not folder.is_dir():
        raise NotAllowed(
            f"{place.agent_name}'s champion {champion.name} is no adapter on the cluster: nothing to merge"
        )
    return champion.name


def _answers(url: str, name: str) -> None:
    try:
        vllm_adapters.verify(url, name)
    except ServerNotUp as e:
        raise ServerNotUp(f"{name} is not served yet: {e}. `pawl champion merge` prints how to start it") from e


def _switch(place: Workplace, arm: Arm, key: Key) -> Route:
    """Write the champion by compare-and-swap; the weights are the same, so nothing is rolled out."""
    if key.role not in ("operator", "admin"):
        raise NotAllowed(f"the key {key.name!r} has role {key.role}; this needs operator or admin")
    if place.control.open_rollout(place.agent_name) is not None:
        raise NotAllowed(f"{place.agent_name} has an open rollout, whose champion must stay: end it first")
    route = current_route(place.fleet, place.control, place.agent)
    made = place.control.put_route(msgspec.structs.replace(route, champion=arm))
    detail = {"agent": place.agent_name, "from": route.champion.name, "to": arm.name, "upstream": arm.upstream}
    place.control.audit("champion served otherwise", key.name, detail, time.time())
    return made
