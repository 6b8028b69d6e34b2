"""Adapters of the registry on this disk and on the serving cluster."""

from __future__ import annotations

import logging
import shutil
import tempfile
import time
from pathlib import Path

from pawl import bootstrap
from pawl.errors import PawlError, ServerNotUp
from pawl.improvement.workplace import Workplace
from pawl.registry.port import Version
from pawl.serving import leases
from pawl.serving.desired import Lease, demand_room

log = logging.getLogger("pawl.serving")
LEASE_S = 1800.0  # an adapter in use is not taken off when it ends; it only keeps the room


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
    """The version's adapter in its folder on disk, loaded and verified on every replica under its own name.

    ResourceError where the cluster has no room for it, before anything is loaded.
    """
    folder = fetch(place, version)
    place_adapter(place, version.adapter, folder, f"version {version.number} of {place.agent_name}")
    return folder


def place_adapter(place: Workplace, name: str, folder: Path, why: str) -> str:
    """Have every replica that is up answer with this adapter, for a while at least; one that comes up later gets it
    too. Returns the address of a replica that has it.

    Raises:
        ResourceError: the replicas keep as many adapters as they can already; the text says what could go.
        ModelFileError: the files are not sound, or the name stands for another folder there.
        ServerNotUp: no replica is up, or one does not answer with it.
    """
    now, path = time.time(), str(folder.resolve())

    def allow(standing: list[Lease]) -> None:
        wanted = bootstrap.needs(place.settings, place.fleet, place.control)
        demand_room(wanted, name, place.settings.vllm_cpu_loras)

    leases.take(place.control, Lease(name, path, why, now + LEASE_S), now, allow)
    try:
        return bootstrap.reconciler(place.settings, place.fleet, place.control).settle([name])[0]
    except PawlError:
        leases.give_back(place.control, name, time.time())
        raise


def release(place: Workplace, name: str) -> None:
    """It is no longer wanted by who placed it; what a route names stays."""
    leases.give_back(place.control, name, time.time())


def restore(place: Workplace) -> None:
    """See that what the agent's route or its open rollout names is on the cluster (a restart forgets it), and warm what
    waits for its approval.

    The gateway does the same all the time; this is for a fleet whose gateway is not up, and to fetch what waits.
    """
    _fetch_waiting(place)
    wanted = bootstrap.needs(place.settings, place.fleet, place.control)
    route = bootstrap.current_route(place.fleet, place.control, place.agent)
    rollout = place.control.open_rollout(place.agent_name)
    arms = [route.champion, route.challenger, *route.shadows]
    arms += [rollout.champion, rollout.challenger] if rollout else []
    mine = {arm.model for arm in arms if arm is not None}
    names = [n for n, need in wanted.items() if n in mine and Path(need.path).is_dir()]
    if names and not _listed_everywhere(place, names):
        bootstrap.reconciler(place.settings, place.fleet, place.control).settle(names)


def _listed_everywhere(place: Workplace, names: list[str]) -> bool:
    """Whether every replica that answers lists them; it saves a probe of each, once a minute."""
    found = []
    for replica in bootstrap.replicas(place.settings, place.fleet)():
        try:
            found.append(replica.look().listed.keys())
        except PawlError as e:
            log.info("%s is not looked at: %s", replica.url, e)
    return bool(found) and all(set(names) <= listed for listed in found)


def _fetch_waiting(place: Workplace) -> None:
    """The next challengers' files, so that they are warm before their first percent."""
    now = time.time()
    for request in place.control.requests():
        folder = place.settings.adapters_dir / request.adapter
        if request.agent != place.agent_name or request.expires <= now or folder.exists():
            continue
        try:
            fetch(place, place.registry.version(request.agent, request.version))
        except (PawlError, KeyError) as e:
            log.warning("%s is not warmed: %s", request.adapter, e)


def a_replica(place: Workplace) -> str:
    """The address of a replica that is up; where there is but one, that. ServerNotUp where none is."""
    if len(place.settings.replica_urls) == 1 and not place.settings.finds_pods:
        return place.settings.vllm_url
    views = bootstrap.reconciler(place.settings, place.fleet, place.control).look().values()
    up = [v.url for v in views if v.up]
    if not up:
        raise ServerNotUp("; ".join(v.why for v in views))
    return up[0]
