"""What a run keeps is what it says: the layers it names, the average that it merged, the whole curve, what held it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from pawl.curation import dataset as datasets
from pawl.curation.dataset import DatasetVersion
from pawl.fleet.training import TrainingSpec
from pawl.training import adalora_peft, models_peft
from pawl.training.adapter_check import check_adapter
from pawl.training.peft_trainer import train
from pawl.training.stage_transformers import Optimiser, _arguments, _batch, one_gpu
from pawl.training.validation_peft import example_losses
from tests.unit.test_peft_trainer import SPEC, make_base, make_dataset
from tests.unit.test_training_methods import ADALORA, BATCH, distance, logits, msgspec_split, run, served

PATTERN = r"model\.layers\.0\..*(q|v)_proj|.*\.down_proj"
NAMED = ["model.layers.0.mlp.down_proj", "model.layers.0.self_attn.q_proj", "model.layers.0.self_attn.v_proj",
         "model.layers.1.mlp.down_proj"]  # fmt: skip


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_base(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With a validation split."""
    folder = tmp_path_factory.mktemp("data")
    version = datasets.load(make_dataset(folder))
    rows = (*version.examples[:32], *msgspec_split(list(version.examples[32:])))
    return datasets.save(DatasetVersion(agent="t", examples=rows, sources=()), folder)


@pytest.fixture(scope="module")
def champion(base: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(run(data, SPEC, base, tmp_path_factory.mktemp("champion")).adapter_dir)


@pytest.mark.parametrize("spec", [SPEC, ADALORA], ids=["lora", "adalora"])
def test_layers_that_a_pattern_chose_are_written_by_name(
    spec: TrainingSpec, base: Path, data: Path, tmp_path: Path
) -> None:
    """peft keeps the pattern itself, which no server and no check reads as it was meant."""
    chosen = spec.model_copy(update={"target_modules": PATTERN, "epochs": 0.5})
    adapter = Path(run(data, chosen, base, tmp_path / "1").adapter_dir)
    assert json.loads((adapter / "adapter_config.json").read_text())["target_modules"] == NAMED
    assert check_adapter(adapter, base).layers == 4
    assert (logits(served(base, adapter)) - logits(served(base))).abs().max() > 0.01
    if spec is SPEC:
        again = train(data, chosen, base, tmp_path / "2", start_adapter=adapter, on_progress=lambda _: None)
        assert check_adapter(Path(again.adapter_dir), base).layers == 4


def test_every_layer_of_a_kind_is_named_by_its_last_name(champion: Path) -> None:
    named = json.loads((champion / "adapter_config.json").read_text())["target_modules"]
    assert named == ["down_proj", "gate_proj", "k_proj", "o_proj", "q_proj", "up_proj", "v_proj"]


def test_what_is_merged_and_measured_is_the_average(base: Path, data: Path, champion: Path, tmp_path: Path) -> None:
    """With `merge` and `merged` the model of its own is base and averaged adapter, not what training left in memory."""
    import torch

    spec = TrainingSpec.model_validate({**SPEC.model_dump(), "seed": 5, "merged": True, "merge": {"weight": 0.3}})
    spec = spec.model_copy(update={"start": "base"})
    result = run(data, spec, base, tmp_path / "o", merge_with=[champion])
    one, two = logits(served(tmp_path / "o" / "merged")), logits(served(base, tmp_path / "o" / "adapter"))
    torch.testing.assert_close(one, two, rtol=0.05, atol=0.05)  # bfloat16's three digits
    losses = example_losses(base, tmp_path / "o" / "adapter", datasets.load(data), spec.max_tokens)
    kept = sum(x.nats / x.tokens for x in losses) / len(losses)
    assert result.validation_after == pytest.approx(kept, rel=1e-3)
    (note,) = [n for n in result.notes if n.startswith("validation before averaging")]
    alone = float(note.split(": ")[1].split()[0])
    assert abs(alone - kept) > 1e-3, "the average is another model"


@pytest.mark.parametrize("method", ["lora", "rslora"])
def test_an_adapter_with_ranks_and_alphas_of_its_layers_is_continued_as_what_it_computes(
    method: str, base: Path, tmp_path: Path
) -> None:
    import torch
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(2)
    config = LoraConfig(
        r=4, lora_alpha=8, target_modules=["q_proj", "v_proj", "down_proj"], task_type="CAUSAL_LM",
        rank_pattern={"q_proj": 2, "layers.1.mlp.down_proj": 6}, alpha_pattern={"v_proj": 32, "q_proj": 5},
    )  # fmt: skip
    model = get_peft_model(served(base), config)
    for name, p in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(p, std=0.1)
    model.save_pretrained(str(tmp_path / "start"), save_embedding_layers=False)
    path = tmp_path / "start" / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"base_model_name_or_path": "tiny"}))
    (tmp_path / "start" / "README.md").unlink()
    before = logits(served(base, tmp_path / "start"))
    assert (before - logits(served(base))).abs().max() > 0.5

    spec = SPEC.model_copy(update={"method": method, "alpha": 12, "target_modules": ("q_proj", "v_proj", "down_proj")})
    continued, _ = models_peft.build(base, spec, tmp_path / "start", 10)
    rounded = logits(served(base, tmp_path / "start", rounded=models_peft.best_dtype()))
    torch.testing.assert_close(logits(continued.float()), rounded, rtol=1e-3, atol=1e-3)
    models_peft.save(continued, base, tmp_path / "adapter")
    saved = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    assert saved["lora_alpha"] == 12 and not saved["alpha_pattern"]
    torch.testing.assert_close(logits(served(base, tmp_path / "adapter")), before, rtol=1e-3, atol=2e-3)


def test_a_resumed_run_has_the_whole_curve(base: Path, data: Path, tmp_path: Path) -> None:
    class Stop(Exception):
        pass

    seen: list[tuple[int, float]] = []

    def stop(p: Any) -> None:
        seen.append((p.step, p.loss))
        if p.step == 17:
            raise Stop

    with pytest.raises(Stop):
        train(data, SPEC, base, tmp_path, start_adapter=None, on_progress=stop)
    (stage,) = run(data, SPEC, base, tmp_path).stages
    assert stage.resumed_at == 10 and [n for n, _ in stage.losses] == list(range(1, stage.steps + 1))
    assert list(stage.losses[:10]) == seen[:10]
    assert stage.loss_last == pytest.approx(sum(x for _, x in stage.losses[-2:]) / 2)


def test_pretraining_is_held_too(base: Path, data: Path, champion: Path, tmp_path: Path) -> None:
    """Only the stage of text moves anything here: the examples' learning rate is next to nothing."""
    (tmp_path / "texts").mkdir()
    for n in range(24):
        (tmp_path / "texts" / f"{n}.md").write_text(" ".join(f"w{(n + k) % 54}" for k in range(60)))
    version = datasets.load(data)
    moved = []
    for strength in (None, 1000.0):
        spec = TrainingSpec.model_validate(
            {
                **SPEC.model_dump(),
                "learning_rate": 1e-9,
                "epochs": 0.1,
                "pretrain": {"files": ["*.md"], "max_tokens": 64, "learning_rate": 1e-2, "batch_size": 2, "epochs": 2},
                "ewc": {"strength": strength, "examples": 16} if strength else None,
            }
        )
        train(data, spec, base, tmp_path / str(strength), start_adapter=champion, on_progress=lambda _: None,
              earlier=version.train[:16], texts=tmp_path / "texts")  # fmt: skip
        moved.append(distance(champion, tmp_path / str(strength) / "adapter"))
    assert moved[0] > 2 * moved[1] > 0


def test_earlier_examples_that_are_too_long_are_passed_over(
    base: Path, data: Path, champion: Path, tmp_path: Path
) -> None:
    rows = datasets.load(data).train[:6]
    long = [msgspec.structs.replace(e, id=f"long{e.id}", completion="yes " * 200) for e in rows]
    spec = TrainingSpec.model_validate({**SPEC.model_dump(), "epochs": 0.1, "ewc": {"examples": 3}})
    held = train(data, spec, base, tmp_path / "1", start_adapter=champion, on_progress=lambda _: None,
                 earlier=[*long, *rows])  # fmt: skip
    assert not [n for n in held.notes if "ewc" in n]
    none = train(data, spec, base, tmp_path / "2", start_adapter=champion, on_progress=lambda _: None, earlier=long)
    assert "ewc was left out: none of 6 earlier examples fits into training.max_tokens 64" in none.notes
    empty = train(data, spec, base, tmp_path / "3", start_adapter=champion, on_progress=lambda _: None)
    assert "ewc was left out: there is no earlier example to hold on to" in empty.notes


def test_a_second_gpu_does_not_make_one_process_two(tmp_path: Path) -> None:
    """What transformers finds where two are visible; it would wrap the model, and take two batches for one."""
    found = _arguments(Optimiser(1e-3, 0.1, 1), 10, tmp_path)
    assert found.n_gpu <= 1
    found._n_gpu = 2
    assert found.train_batch_size == 2
    assert one_gpu(found).n_gpu == 1 and found.train_batch_size == 1
    with pytest.raises(AssertionError, match="2 batches at once"):
        _batch([BATCH, BATCH], 2)


def test_ranks_come_back_to_the_device_of_their_parameters(base: Path, tmp_path: Path) -> None:
    """Where there is no GPU the device that only has shapes stands for one."""
    import torch

    model, _ = models_peft.build(base, ADALORA, None, 20)
    model.float()(input_ids=torch.tensor([[1, 4, 9]]), labels=torch.tensor([[1, 4, 9]])).loss.backward()
    ranks = adalora_peft.Ranks(model)
    ranks.after_step(3)
    assert ranks.importance()
    ranks.save(tmp_path)
    other = "cuda" if torch.cuda.is_available() else "meta"
    adalora_peft.Ranks(model.to(other)).load(tmp_path)
    allocator = model.base_model.rankallocator
    found = [t for kind in ("ipt", "exp_avg_ipt", "exp_avg_unc") for t in getattr(allocator, kind).values()]
    assert found and {t.device.type for t in found} == {other}
