"""What a training begins with: the champion it continues or may not, and what makes it another training."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml
from pydantic import ValidationError

from pawl.curation import dataset as datasets
from pawl.errors import ModelFileError
from pawl.fleet.training import TrainingSpec
from pawl.improvement import placing, steps
from pawl.improvement.erasure import traces
from pawl.improvement.planning import plan
from pawl.improvement.searching import search
from pawl.improvement.starting import beginning, start_of
from pawl.improvement.steps import Lineage
from pawl.improvement.workplace import Candidate
from pawl.registry.memory_registry import MemoryRegistry
from pawl.registry.port import Version
from pawl.rollout.route import Arm, Route
from pawl.settings import Settings
from pawl.training.continuation import misfit, names_of
from pawl.training.peft_trainer import train
from pawl.training.result import TrainResult
from tests.memory_place import Place
from tests.unit.test_peft_trainer import SPEC, make_base, make_dataset

QUICK = SPEC.model_copy(update={"epochs": 0.2})


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_base(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="module")
def adapter(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    data = make_dataset(tmp_path_factory.mktemp("data"))
    out = tmp_path_factory.mktemp("champion")
    train(data, QUICK, base, out, start_adapter=None, on_progress=lambda _: None)
    return out / "adapter"


@pytest.fixture
def place(tmp_path: Path, base: Path, free_port: int) -> Place:
    """A machine of its own, with its own copy of the base model; no MLflow server answers."""
    mine = shutil.copytree(base, tmp_path / "models" / "tiny")
    agents = [{"name": n, "task": "generic", "training": QUICK.model_dump(mode="json")} for n in ("tiny", "other")]
    fleet = {
        "base_model": {"source": str(mine), "licence": "Apache-2.0"},
        "upstreams": {"local": {"preset": "vllm"}},
        "agents": agents,
    }
    (tmp_path / "fleet.yaml").write_text(yaml.safe_dump(fleet))
    settings = Settings(home=tmp_path / "home", fleet=tmp_path / "fleet.yaml", mlflow_port=free_port)
    make_dataset(tmp_path / "home" / "datasets")
    return Place(settings, "tiny", MemoryRegistry())


@pytest.fixture
def serve(place: Place, adapter: Path, tmp_path: Path) -> Callable[..., Version]:
    """Registers an adapter and lets it serve; nothing lies in the adapters' folder yet."""

    def served(agent: str = "tiny", folder: Path = adapter) -> Version:
        version = place.registry.register(agent, folder, {}, {})
        old = place.control.route(agent)
        arm = Arm(version.adapter, "local", version.adapter, "local")
        place.control.put_route(Route(agent=agent, champion=arm, revision=old.revision if old else 0))
        return version

    return served


def base_of(place: Place) -> Path:
    return Path(place.fleet.base_model.source)


def dataset_of(place: Place) -> Path:
    (path,) = (p for p in place.settings.datasets_dir.glob("*.json") if datasets.is_dataset(p))
    return path


def quiet(*_: Any) -> None:
    return None


def test_a_champion_that_is_not_on_this_machine_is_fetched(place: Place, serve: Callable[..., Version]) -> None:
    version = serve()
    found = start_of(place, SPEC, base_of(place))
    assert found == (Arm(version.adapter, "local", version.adapter, "local"),
                     place.settings.adapters_dir / version.adapter, "")  # fmt: skip
    assert found.adapter is not None and (found.adapter / "adapter_model.safetensors").is_file()


def test_a_champion_that_is_nowhere_stops_training(place: Place) -> None:
    arm = Arm("tiny-v3-0a1b2c3d", "local", "tiny-v3-0a1b2c3d", "local")
    place.control.put_route(Route(agent="tiny", champion=arm))
    with pytest.raises(ModelFileError, match=r"neither in .* nor in the registry.*start: base"):
        steps.train(place, dataset_of(place), QUICK, quiet)
    assert start_of(place, SPEC.model_copy(update={"start": "base"}), base_of(place)).adapter is None


def test_the_base_model_and_a_cloud_are_no_adapters(place: Place) -> None:
    assert start_of(place, SPEC, base_of(place)) == (Arm("base", "local", "base", "local"), None, "")
    place.control.put_route(Route(agent="tiny", champion=Arm("gpt", "cloud", "gpt", "cloud")))
    assert start_of(place, SPEC, base_of(place)).arm.name == "base"


def test_a_raised_rank_begins_anew_and_says_so(place: Place, serve: Callable[..., Version]) -> None:
    """Trained for real, with the server of experiments away."""
    version = serve()
    raised = QUICK.model_copy(update={"rank": 8, "alpha": 16})
    made = steps.train(place, dataset_of(place), raised, quiet)
    result = made.read("training", TrainResult)
    assert result.notes[0] == (
        f"begun anew from the base model: the champion {version.adapter} has rank 4, the spec says 8"
    )
    assert result.started_from == "" and made.read("lineage", Lineage).parent == "base"
    same = steps.train(place, dataset_of(place), QUICK, quiet)
    assert same.read("training", TrainResult).started_from == same.read("lineage", Lineage).parent == version.adapter


def test_ewc_without_anything_to_hold_is_left_out_and_says_so(place: Place) -> None:
    spec = TrainingSpec.model_validate({**QUICK.model_dump(), "ewc": {}, "merge": {}})
    result = steps.train(place, dataset_of(place), spec, quiet).read("training", TrainResult)
    assert any(n.startswith("ewc was left out: training begins with the base model") for n in result.notes)
    assert "merge was left out: none of training.merge.others serves an adapter yet" in result.notes


def test_another_base_model_is_another_candidate(place: Place) -> None:
    first = steps.train(place, dataset_of(place), QUICK, quiet)
    told: list[str] = []
    again = steps.train(place, dataset_of(place), QUICK, lambda *a: told.append(a[0]))
    assert again == first and told == [], "a finished one is kept"
    make_base_again(base_of(place))
    other = steps.train(place, dataset_of(place), QUICK, quiet)
    one, two = (c.read("lineage", Lineage) for c in (first, other))
    assert other.id != first.id and one.base_sha256 != two.base_sha256


def test_a_lineage_of_another_base_is_not_believed(place: Place) -> None:
    made = steps.train(place, dataset_of(place), QUICK, quiet)
    true = made.read("lineage", Lineage)
    made.write("lineage", msgspec.structs.replace(true, base_sha256="another"))
    assert steps.train(place, dataset_of(place), QUICK, quiet).read("lineage", Lineage) == true


def test_partners_and_texts_are_part_of_what_a_candidate_is(
    place: Place, serve: Callable[..., Version], tmp_path: Path
) -> None:
    version = datasets.load(dataset_of(place))
    (tmp_path / "a.md").write_text("one two")
    spec = TrainingSpec.model_validate(
        {**QUICK.model_dump(), "start": "base", "merge": {"others": ["other"]}, "pretrain": {"files": ["*.md"]}}
    )
    keys = [beginning(place, version, spec, base_of(place)).key]
    assert beginning(place, version, spec, base_of(place)).key == keys[0]
    partner = serve("other")
    begun = beginning(place, version, spec, base_of(place))
    assert [o.name for o in begun.others] == [partner.adapter] and begun.others[0].is_dir(), "it was fetched"
    keys.append(begun.key)
    (tmp_path / "a.md").write_text("one three")
    keys.append(beginning(place, version, spec, base_of(place)).key)
    assert len(set(keys)) == 3


def test_a_partner_that_cannot_be_averaged_stops_before_training(
    place: Place, base: Path, adapter: Path, tmp_path: Path
) -> None:
    dora = QUICK.model_copy(update={"method": "dora", "merged": True})
    result = train(dataset_of(place), dora, base, tmp_path / "dora", start_adapter=None, on_progress=quiet)
    spec = TrainingSpec.model_validate({**QUICK.model_dump(), "merge": {}})
    with pytest.raises(ModelFileError, match="no plain LoRA"):
        train(dataset_of(place), spec, base, tmp_path / "o", start_adapter=None, merge_with=[Path(result.adapter_dir)],
              on_progress=lambda _: pytest.fail("it trained first"))  # fmt: skip


def make_base_again(folder: Path) -> None:
    """Other weights in the same folder, under the same name."""
    import torch
    from safetensors.torch import load_file, save_file

    path = folder / "model.safetensors"
    tensors = load_file(path)
    tensors["model.norm.weight"] = tensors["model.norm.weight"] * torch.tensor(1.01)
    save_file(tensors, path, metadata={"format": "pt"})


def test_what_fits_is_a_matter_of_rank_kind_and_layers() -> None:
    linear = {f"model.layers.{i}.{n}" for i in (0, 1) for n in ("q_proj", "v_proj")}
    plain = {"r": 4, "use_dora": False}
    assert misfit(plain, linear, SPEC, linear) == ""
    assert misfit({**plain, "r": 8, "use_dora": True}, linear, SPEC, linear) == (
        "rank 8, the spec says 4; dora True, the spec says False"
    )
    queries = SPEC.model_copy(update={"target_modules": ("q_proj",)})
    assert "2 layers in it are not in the spec" in misfit(plain, linear, queries, linear)
    first = SPEC.model_copy(update={"target_modules": r".*layers\.0\..*"})
    assert misfit(plain, {n for n in linear if ".0." in n}, first, linear) == ""
    assert "2 layers that the spec names are not in it (model.layers.1.q_proj, model.layers.1.v_proj)" in misfit(
        plain, {n for n in linear if ".0." in n}, SPEC, linear
    )
    assert misfit(plain, {"x"}, SPEC, set()) == "", "layers that nobody knows are not compared"


def test_layers_are_named_as_shortly_as_is_exact() -> None:
    modules = ["a.0.q", "a.0.v", "a.1.q", "a.1.v", "a"]
    assert names_of({"a.0.q", "a.1.q"}, modules) == ["q"]
    assert names_of({"a.0.q"}, modules) == ["a.0.q"]


def test_full_weights_continue_nothing_and_a_dora_is_not_averaged() -> None:
    with pytest.raises(ValidationError, match="set start: base"):
        TrainingSpec(method="full", merged=True)
    assert TrainingSpec(method="full", merged=True, start="base").start == "base"
    with pytest.raises(ValidationError, match="a DoRA is none"):
        TrainingSpec.model_validate({"method": "dora", "merged": True, "merge": {}})


def test_several_that_fetch_one_version_find_it_whole(place: Place, serve: Callable[..., Version]) -> None:
    version = serve()
    target = place.settings.adapters_dir / version.adapter

    class Slow(MemoryRegistry):
        """Gives the files in turns, as a network does."""

        def download(self, version: Version, to: Path) -> Path:
            assert not target.exists() or (target / "adapter_model.safetensors").exists()
            return super().download(version, to / "deeper")

    slow = Slow()
    slow.__dict__.update(place.memory.__dict__)
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: placing.fetch(Place(place.settings, "tiny", slow), version), range(4)))
    assert set(found) == {target} and {p.name for p in place.settings.adapters_dir.iterdir()} == {version.adapter}
    assert placing.fetch(place, version) == target


def test_a_fetch_that_is_cut_off_leaves_nothing_under_the_name(place: Place, serve: Callable[..., Version]) -> None:
    version = serve()

    class Broken(MemoryRegistry):
        """Goes away in the middle."""

        def download(self, version: Version, to: Path) -> Path:
            super().download(version, to / "deeper")
            raise KeyboardInterrupt

    broken = Broken()
    broken.__dict__.update(place.memory.__dict__)
    with pytest.raises(KeyboardInterrupt):
        placing.fetch(Place(place.settings, "tiny", broken), version)
    assert not [*place.settings.adapters_dir.iterdir()]


def test_an_unmeasured_quantised_base_stops_search_and_plan(place: Place) -> None:
    config = base_of(place) / "config.json"
    told = msgspec.json.decode(config.read_bytes())
    method = {"quant_method": "compressed-tensors", "format": "pack-quantized", "config_groups": {}}
    config.write_bytes(msgspec.json.encode({**told, "quantization_config": method}))
    with pytest.raises(ModelFileError, match="pawl base-quality"):
        search(place, dataset_of(place), quiet)
    found = plan(place, dataset_of(place))
    assert not found.good and any("pawl base-quality" in v.text for v in found.violations)


def test_what_was_averaged_with_an_erased_one_is_told_too(place: Place) -> None:
    """Names of arms end in the first eight digits of their adapters' hashes."""
    shared = {"dataset_fingerprint": "f", "base_sha256": "b", "code_version": "1"}
    for name, sha, of, parent, partners in (
        ("first", "a" * 64, dataset_of(place).name, "base", ""),
        ("averaged", "b" * 64, "other.json", "base", f"other-v1-{'c' * 8}, tiny-v1-{'a' * 8}"),
        ("continued", "d" * 64, "other.json", f"tiny-v2-{'b' * 8}", ""),
        ("apart", "e" * 64, "other.json", "base", f"other-v1-{'c' * 8}"),
    ):
        lineage = Lineage(
            dataset=of, adapter_sha256=sha, parent=parent, candidate=name, averaged_with=partners, **shared
        )
        Candidate(place.settings.home / "candidates" / name).write("lineage", lineage)
    found = traces({"i3"}, place.settings.datasets_dir, place.settings.home / "candidates")
    assert found.adapters == ["averaged", "continued", "first"]
    assert "averaged_with" not in msgspec.to_builtins(
        Lineage(dataset="", adapter_sha256="", parent="", candidate="", **shared)
    ), "a registry's tag is never empty"
