"""Which sources the compared models learnt from."""

from __future__ import annotations

from pathlib import Path

from pawl.curation import dataset as datasets
from pawl.curation.dataset import DatasetVersion, Example
from pawl.improvement.comparing import trained_on
from pawl.improvement.steps import Lineage
from pawl.improvement.workplace import Candidate, Workplace
from pawl.settings import Settings

MINE, OTHER = "ab" * 32, "cd" * 32


def made(place: Workplace, agent: str, number: int, sha256: str, *sources: str) -> Path:
    """A candidate's lineage and its dataset's file."""
    example = Example(id=str(number), messages=[], completion="{}", quality=1.0, source=sources[0], interactions=("i",))
    version = DatasetVersion(agent=agent, examples=(example,), sources=sources)
    path = datasets.save(version, place.settings.datasets_dir)
    lineage = Lineage(
        dataset=path.name, dataset_fingerprint=version.fingerprint, base_sha256="b", adapter_sha256=sha256,
        code_version="c", parent="base", candidate=f"{agent}-{number}",
    )  # fmt: skip
    Candidate(place.settings.home / "candidates" / f"{agent}-{number}").write("lineage", lineage)
    return path


def test_what_a_model_learnt_from_is_known_by_its_weights_and_what_is_gone_is_not(tmp_path: Path) -> None:
    place = Workplace(Settings(home=tmp_path), "negative")
    assert trained_on(place, [f"base{MINE}"]) == set()
    path = made(place, "negative", 1, MINE, "s1", "s2")
    made(place, "negative", 2, OTHER, "s3")
    made(place, "positive", 1, MINE, "s4")
    made(place, "negative", 3, "", "s5")  # one that was never trained
    assert trained_on(place, [f"base{MINE}", "base"]) == {"s1", "s2"}
    assert trained_on(place, [f"base{OTHER}", f"base{MINE}"]) == {"s1", "s2", "s3"}
    assert trained_on(place, ["base", "http://cloud/v1 model"]) == set()
    (place.settings.home / "candidates" / "negative-2" / "lineage.json").write_text("{")
    path.unlink()
    assert trained_on(place, [f"base{OTHER}", f"base{MINE}"]) == set()
