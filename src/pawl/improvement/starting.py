"""What a training begins with: the adapter it continues, those it is averaged with, and what makes it this training."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from pawl.bootstrap import current_route, upstream_arm
from pawl.curation.dataset import DatasetVersion, Example
from pawl.errors import ModelFileError
from pawl.fleet.training import TrainingSpec
from pawl.improvement.continuing import earlier_examples
from pawl.improvement.placing import fetch
from pawl.improvement.workplace import Workplace
from pawl.rollout.route import Arm

_SPARE = 4  # earlier examples for each that is asked for: some are too long


class Start(NamedTuple):
    """What training continues."""

    arm: Arm  # the base model's, where it begins anew
    adapter: Path | None  # None: the base model itself
    note: str = ""  # why it begins anew, where the spec says otherwise


class Beginning(NamedTuple):
    """Everything beside the dataset and the spec that decides what comes out of a training."""

    base_sha256: str
    start: Start
    others: tuple[Path, ...]  # adapters that the result is averaged with
    earlier: tuple[Example, ...]  # that are held on to
    texts: str  # digest of the team's own text; empty without any

    @property
    def key(self) -> str:
        """The same for two trainings that begin alike."""
        parts = [self.base_sha256, self.start.arm.name, *(o.name for o in self.others), self.texts]
        parts.append(hashlib.sha256("\0".join(e.id for e in self.earlier).encode()).hexdigest())
        return hashlib.sha256("\0\0".join(parts).encode()).hexdigest()


def beginning(place: Workplace, version: DatasetVersion, spec: TrainingSpec, base_dir: Path) -> Beginning:
    """Looked up as it is now. ModelFileError where an adapter that is to be continued or averaged is nowhere."""
    from pawl.training.base_model_transformers import base_sha256
    from pawl.training.pretraining import digest

    return Beginning(
        base_sha256=base_sha256(base_dir),
        start=start_of(place, spec, base_dir),
        others=_partners(place, spec),
        earlier=tuple(earlier_examples(place, version, _SPARE * spec.ewc.examples)) if spec.ewc else (),
        texts=digest(spec.pretrain, texts_root(place)) if spec.pretrain else "",
    )


def start_of(place: Workplace, spec: TrainingSpec, base_dir: Path) -> Start:
    """A champion's adapter, the agent's own or another's, or the base model.

    An adapter of another rank, kind or layers than the spec's cannot be continued: training begins anew, and a note
    says so. One that is not on this machine is fetched. ModelFileError where it is nowhere: to begin anew without a
    word would lose what the champion has learnt.
    """
    from pawl.training.continuation import why_anew

    base = upstream_arm(place.fleet, place.fleet.local_upstream)
    arm = base if spec.start == "base" else _champion(place, spec.start)
    adapter = _adapter(place, arm, spec.start)
    if adapter is None:
        return Start(base, None)
    why = why_anew(adapter, spec, base_dir)
    if why:
        return Start(base, None, f"begun anew from the base model: the champion {arm.name} has {why}")
    return Start(arm, adapter)


def texts_root(place: Workplace) -> Path:
    """The folder that `training.pretrain.files` are looked for in."""
    return place.settings.fleet.resolve().parent


def _partners(place: Workplace, spec: TrainingSpec) -> tuple[Path, ...]:
    """Adapters of the champions that the result is averaged with; none of an agent that the base model serves."""
    others: Sequence[str] = spec.merge.others if spec.merge else ()
    found = [_adapter(place, _champion(place, other), other) for other in others]
    return tuple(f for f in found if f is not None)


def _champion(place: Workplace, of: str) -> Arm:
    """`champion` is the agent's own; any other name an agent's."""
    agent = place.agent if of == "champion" else place.fleet.agent(of)
    return current_route(place.fleet, place.control, agent).champion


def _adapter(place: Workplace, arm: Arm, of: str) -> Path | None:
    """The arm's adapter on this disk, fetched where it is not; None where the arm is no adapter."""
    if arm.kind != "local" or arm.name == place.fleet.base_model.served_name:
        return None
    folder = place.settings.adapters_dir / arm.name
    if folder.exists():
        return folder
    agent = place.agent_name if of == "champion" else of
    for version in place.registry.versions(agent):
        if version.adapter == arm.name:
            return fetch(place, version)
    raise ModelFileError(
        f"the champion {arm.name} of {agent} is neither in {place.settings.adapters_dir} nor in the registry: put its "
        "folder there, or set training.start: base (and training.merge aside)"
    )
