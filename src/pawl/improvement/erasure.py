"""Where erased interactions were learnt from: dataset versions that hold them, adapters that come from those."""

from __future__ import annotations

from pathlib import Path

import msgspec

from pawl.curation import dataset, regression
from pawl.errors import LakeError
from pawl.improvement.preparing import reports_of
from pawl.improvement.steps import Lineage
from pawl.lake.parquet_lake import ParquetLake
from pawl.review.files import Reviews


class Traces(msgspec.Struct, frozen=True):
    """Names, sorted."""

    datasets: list[str]
    adapters: list[str]  # candidates: trained on such a dataset, or from an adapter that was


def lost(lake: ParquetLake, datasets: Path) -> set[str]:
    """Ids that dataset versions were made from and the lake holds no more.

    Asked of the lake and not of the erasure: one that was cut off before it could name the versions is made up for by
    the next. LakeError where a dataset cannot be read.
    """
    found: set[str] = set()
    for path in filter(dataset.is_dataset, datasets.glob("*.json")):
        version = dataset.load(path)
        ids = _origins(version)
        left = ids - lake.owners(ids).keys()
        found |= left - {o.id for o in lake.observations(version.agent, None, None)} if left else set()
    return found


def forget(lake: ParquetLake, suites: Path, reviews: Path) -> None:
    """Take out of regression suites and reviews what the lake holds no more.

    Asked of the lake and not of the erasure: one that was cut off half-way is finished by the next.
    """

    def without_lost(suite: regression.Suite) -> regression.Suite:
        known = lake.owners({i.interaction for i in suite.items})
        return msgspec.structs.replace(suite, items=tuple(i for i in suite.items if i.interaction in known))

    for path in sorted(suites.glob("*.json")):
        regression.change(suites, path.stem, without_lost)
    held = Reviews(reviews)
    ids = {fact.interaction for sample in held.samples() for fact in sample.hidden.facts}
    held.forget(ids - lake.owners(ids).keys())


def pages_about(dataset: Path) -> list[Path]:
    """What was written about a dataset version beside it and may quote its rows: validation's findings and pages."""
    pages = [Path(r.docs) for r in reports_of(dataset) if r.docs]
    beside = [p for p in sorted(dataset.parent.glob(f"{dataset.stem}.*")) if p != dataset]
    return [*beside, *(p for p in dict.fromkeys(pages) if p.exists())]


def _origins(version: dataset.DatasetVersion) -> set[str]:
    return {i for e in version.examples for i in e.interactions} | {i for p in version.pairs for i in p.interactions}


def traces(gone: set[str], datasets: Path, candidates: Path) -> Traces:
    """The versions that contain any of those interactions. LakeError where one cannot be read: then nobody knows."""
    try:
        files = [p for p in sorted(datasets.glob("*.json")) if dataset.is_dataset(p)]
        held = [p.name for p in files if not gone.isdisjoint(_origins(dataset.load(p)))]
        lineages = [msgspec.json.decode(p.read_bytes(), type=Lineage) for p in candidates.glob("*/lineage.json")]
    except (OSError, msgspec.MsgspecError) as e:
        raise LakeError(f"a dataset or a lineage cannot be read ({e}): what it holds is not known") from e
    tainted = {li.candidate: li.adapter_sha256[:8] for li in lineages if li.dataset in held}
    # What continued from a tainted adapter, or was averaged with one, has it too; an arm's name ends in the hash.
    while True:
        more = {
            li.candidate: li.adapter_sha256[:8]
            for li in lineages
            if li.candidate not in tainted
            and any(arm.rpartition("-")[2] in tainted.values() for arm in (li.parent, *li.averaged_with.split(", ")))
        }
        if not more:
            return Traces([n.removesuffix(".json") for n in held], sorted(tainted))
        tainted |= more
