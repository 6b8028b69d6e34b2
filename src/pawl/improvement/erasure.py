"""Where erased interactions were learnt from: dataset versions that hold them, adapters that come from those."""

from __future__ import annotations

from pathlib import Path

import msgspec

from pawl.curation import dataset
from pawl.errors import LakeError
from pawl.improvement.steps import Lineage


class Traces(msgspec.Struct, frozen=True):
    """Names, sorted."""

    datasets: list[str]
    adapters: list[str]  # candidates: trained on such a dataset, or from an adapter that was


def traces(gone: set[str], datasets: Path, candidates: Path) -> Traces:
    """The versions that contain any of those interactions. LakeError where one cannot be read: then nobody knows."""
    try:
        files = [p for p in sorted(datasets.glob("*.json")) if not p.name.endswith(".validation.json")]
        held = [p.name for p in files if any(gone.intersection(e.interactions) for e in dataset.load(p).examples)]
        lineages = [msgspec.json.decode(p.read_bytes(), type=Lineage) for p in candidates.glob("*/lineage.json")]
    except (OSError, msgspec.MsgspecError) as e:
        raise LakeError(f"a dataset or a lineage cannot be read ({e}): what it holds is not known") from e
    tainted = {li.candidate: li.adapter_sha256[:8] for li in lineages if li.dataset in held}
    while True:  # what continued from a tainted adapter learnt from it too; its arm's name ends in the hash
        more = {
            li.candidate: li.adapter_sha256[:8]
            for li in lineages
            if li.candidate not in tainted and li.parent.rpartition("-")[2] in tainted.values()
        }
        if not more:
            return Traces([n.removesuffix(".json") for n in held], sorted(tainted))
        tainted |= more
