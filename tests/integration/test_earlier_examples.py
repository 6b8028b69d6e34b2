"""What elastic weight consolidation holds on to, from a real lake and control database."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
import yaml

from pawl.curation import dataset as datasets
from pawl.curation import regression
from pawl.curation.dataset import DatasetVersion, Example
from pawl.fleet.spec import RolloutSpec
from pawl.improvement.continuing import earlier_examples
from pawl.improvement.held_out import side_of
from pawl.improvement.workplace import Workplace
from pawl.lake.records import Interaction
from pawl.registry.memory_registry import MemoryRegistry
from pawl.rollout.route import Arm
from pawl.rollout.state import Rollout
from pawl.settings import Settings
from tests.memory_place import Place

AGENT = "functional-negative"
AT = 1_795_000_000.0


@pytest.fixture(scope="module")
def sides(root_path: Path) -> Callable[[str], str]:
    return side_of(Workplace(Settings(fleet=root_path / "infra" / "fleet.yaml"), AGENT).agent)


@pytest.fixture(scope="module")
def root_path() -> Path:
    return Path(__file__).resolve().parents[2]


@pytest.fixture
def place(tmp_path: Path, root_path: Path) -> Place:
    return Place(Settings(home=tmp_path, fleet=root_path / "infra" / "fleet.yaml"), AGENT, MemoryRegistry())


@pytest.fixture(scope="module")
def source(sides: Callable[[str], str]) -> Callable[[str, int], str]:
    """The n-th made-up source of a split."""

    def found(split: str, n: int) -> str:
        return [s for s in (f"service{k}" for k in range(200)) if sides(s) == split][n]

    return found


def promote(place: Place, version: DatasetVersion, stage: str = "done") -> None:
    """A registered adapter of that dataset, and its rollout."""
    path = datasets.save(version, place.settings.datasets_dir)
    folder = place.settings.home / "a" / version.fingerprint
    folder.mkdir(parents=True)
    (folder / "adapter_config.json").write_text(json.dumps({"of": version.fingerprint}))
    (folder / "adapter_model.safetensors").write_bytes(b"w")
    lineage = {"dataset": path.name, "dataset_fingerprint": version.fingerprint}
    number = place.registry.register(AGENT, folder, lineage, {}).number
    arm = Arm(number, "local", number, "local")
    place.control.save_rollout(
        Rollout(id=number, agent=AGENT, version=number, champion=arm, challenger=arm, stage=stage, opened_at=AT,
                stage_since=AT, spec=RolloutSpec())
    )  # fmt: skip


def dataset(*examples: Example) -> DatasetVersion:
    return DatasetVersion(agent=AGENT, examples=examples, sources=tuple({e.source for e in examples}))


def test_only_what_promotion_vouched_for_and_nothing_held_out_erased_or_taught_anew(
    place: Place, source: Callable[[str, int], str]
) -> None:
    def example(name: str, where: str = "train", n: int = 0, **more: object) -> Example:
        made = Example(id=name, messages=[], completion="x", quality=1.0, source=source(where, n),
                       interactions=(f"i-{name}",))  # fmt: skip
        return msgspec.structs.replace(made, **more)

    names = ("good", "varied", "moved", "held", "barred", "again", "refused", "replayed", "new", "aside")
    place.lake.add(
        [
            Interaction(id=f"i-{n}", at=AT, agent=AGENT, session="s", key_id="k", arm="base", arm_kind="local",
                        messages=[], completion="x")
            for n in names
        ]
    )  # fmt: skip
    promote(
        place,
        dataset(
            example("good"),
            example("varied", kind="variant"),
            example("moved", "test"),  # trained once, held out since the border of the split moved
            example("held", "test", split="test"),
            example("barred", n=1),
            example("again"),
            example("erased"),  # not in the lake
            example("aside"),
        ),
    )
    promote(place, dataset(example("refused")), stage="rolled_back")
    suite = regression.Suite(agent=AGENT, reserved=(source("train", 1),))
    regression.change(place.settings.regression_dir, AGENT, lambda _: suite)
    place.control.quarantine("interactions", AGENT, {"i-aside": "a rule"}, AT)
    version = dataset(example("new"), example("again"), example("replayed", replayed=True))
    datasets.save(version, place.settings.datasets_dir)

    found = earlier_examples(place, version, 64)
    assert sorted(e.id for e in found) == ["good", "replayed"]
    assert earlier_examples(place, version, 64) == found
    assert len(earlier_examples(place, version, 1)) == 1


def test_a_dataset_is_not_earlier_than_itself(place: Place, source: Callable[[str, int], str]) -> None:
    own = dataset(Example(id="a", messages=[], completion="x", quality=1.0, source=source("train", 0), interactions=()))
    promote(place, own)
    assert earlier_examples(place, own, 8) == []


@pytest.mark.parametrize("data", [{"consent": "required"}, {"privacy": ["open", "strict"]}])
def test_what_may_not_be_learnt_from_any_more_does_not_hold_either(
    place: Place, source: Callable[[str, int], str], data: dict[str, object]
) -> None:
    """Consent and privacy as fleet.yaml has them now, not as they were when the earlier dataset was made."""

    def example(name: str, **more: str) -> Example:
        return Example(id=name, messages=[{"role": "user", "content": name}], completion="x", quality=1.0,
                       source=source("train", 0), interactions=(), **more)  # fmt: skip

    rows = (
        example("granted", consent="granted"),
        example("silent"),
        example("denied", consent="denied"),
        example("local", privacy="local_only", consent="granted"),
    )
    old = msgspec.structs.replace(dataset(example("untold", consent="granted")), v=2)
    promote(place, dataset(*rows))
    promote(place, old)
    replays = msgspec.structs.replace(dataset(_replayed(example("told", consent="granted"))), v=2)
    assert {e.id for e in earlier_examples(place, dataset(), 64)} == {"granted", "silent", "local", "untold"}
    fleet = yaml.safe_load(place.settings.fleet.read_text())
    fleet["agents"][0]["data"].update(data)
    (place.settings.home / "fleet.yaml").write_text(yaml.safe_dump(fleet))
    now = Place(place.settings.model_copy(update={"fleet": place.settings.home / "fleet.yaml"}), AGENT, place.memory)
    left = {"granted", "local", "untold", "told"} if "consent" in data else {"granted", "silent"}
    assert {e.id for e in earlier_examples(now, replays, 64)} == left


def _replayed(example: Example) -> Example:
    return msgspec.structs.replace(example, replayed=True)
