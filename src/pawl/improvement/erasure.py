"""Where erased interactions were learnt from: dataset versions that hold them, adapters that come from those."""

from __future__ import annotations

from pathlib import Path

import msgspec

from pawl.curation import dataset, regression
from pawl.errors import LakeError
from pawl.improvement.steps import Lineage
from pawl.lake.parquet_lake import ParquetLake
from pawl.review.files import Reviews


class Traces(msgspec.Struct, frozen=True):
    """Names, sorted."""

    datasets: list[str]
    adapters: list[str]  # candidates: trained on such a dataset, or from an adapter that was


def forget(lake: ParquetLake, suites: Path, reviews: Path) -> None:
    """Take out of regression suites and reviews what the lake holds no more.

    Asked of the lake and not of the erasure: one that was cut off half-way is finished by the next.
    """
    for path in sorted(suites.glob("*.json")):
        suite = regression.load(suites, path.stem)
        known = lake.owners({i.interaction for i in suite.items})
        kept = tuple(i for i in suite.items if i.interaction in known)
        if len(kept) < len(suite.items):
            regression.save(msgspec.structs.replace(suite, items=kept), suites)
    held = Reviews(reviews)
    ids = {fact.interaction for sample in held.samples() for fact in sample.hidden.facts}
    held.forget(ids - lake.owners(ids).keys())


def _holds(version: dataset.DatasetVersion, gone: set[str]) -> bool:
    held = [e.interactions for e in version.examples] + [p.interactions for p in version.pairs]
    return any(gone.intersection(ids) for ids in held)


def traces(gone: set[str], datasets: Path, candidates: Path) -> Traces:
    """The versions that contain any of those interactions. LakeError where one cannot be read: then nobody knows."""
    try:
        files = [p for p in sorted(datasets.glob("*.json")) if dataset.is_dataset(p)]
        held = [p.name for p in files if _holds(dataset.load(p), gone)]
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
