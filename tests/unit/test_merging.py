"""Merged adapters compute what was promised: seen in what they add to a tiny random Llama's layers."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pawl.errors import ModelFileError
from tests.unit.test_peft_trainer import make_base

Make = Callable[..., Path]
A, B = ".lora_A.weight", ".lora_B.weight"


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_base(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="module")
def make(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Make:
    """Writes an adapter with random weights, as peft writes it."""
    root = tmp_path_factory.mktemp("adapters")

    def made(seed: int, rank: int = 4, **config: Any) -> Path:
        import torch
        from peft import LoraConfig, get_peft_model
        from transformers import AutoModelForCausalLM

        told = {"lora_alpha": 8, "target_modules": "all-linear", **config}
        plain = AutoModelForCausalLM.from_pretrained(str(base), dtype=torch.float32)
        torch.manual_seed(seed)
        model = get_peft_model(plain, LoraConfig(r=rank, task_type="CAUSAL_LM", **told))
        for name, p in model.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(p, std=0.1)
        folder = root / f"{seed}-{rank}-{len(list(root.iterdir()))}"
        model.save_pretrained(str(folder), save_embedding_layers=False)
        path = folder / "adapter_config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"base_model_name_or_path": "tiny"}))
        return folder

    return made


def deltas(folder: Path) -> dict[str, Any]:
    """Layer -> what the adapter adds to its weight, by peft's rules of scaling."""
    from safetensors.torch import load_file

    config = json.loads((folder / "adapter_config.json").read_text())
    tensors = load_file(folder / "adapter_model.safetensors")
    found = {}
    for name in tensors:
        if name.endswith(A):
            layer = name.removesuffix(A)
            r = tensors[name].shape[0]
            scaling = config["lora_alpha"] / (r**0.5 if config["use_rslora"] else r)
            found[layer] = scaling * tensors[layer + B].double() @ tensors[name].double()
    return found


def logits(base: Path, folder: Path) -> Any:
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    plain = AutoModelForCausalLM.from_pretrained(str(base), dtype=torch.float32)
    model = PeftModel.from_pretrained(plain, str(folder))
    with torch.no_grad():
        return model(input_ids=torch.arange(3, 40)[None]).logits


@pytest.mark.parametrize(("method", "density"), [("linear", 0.5), ("ties", 1.0)])
def test_merged_with_itself_an_adapter_computes_the_same(
    base: Path, make: Make, tmp_path: Path, method: Any, density: float
) -> None:
    import torch

    from pawl.training.merging_peft import merge

    one = make(1, use_rslora=True)
    found = merge([one, one], [0.3, 0.7], tmp_path / "out", method=method, density=density, rank=4)
    assert found.error < 1e-5 and found.layers == 14
    torch.testing.assert_close(logits(base, tmp_path / "out"), logits(base, one), rtol=1e-3, atol=1e-4)


def test_linear_is_the_weighted_average_of_what_the_layers_add(make: Make, tmp_path: Path) -> None:
    import torch

    from pawl.training.merging_peft import merge

    one, two = make(1, lora_alpha=16), make(2, rank=2, use_rslora=True)
    found = merge([one, two], [0.75, 0.25], tmp_path / "out", method="linear", density=0.5, rank=6)
    first, second, out = deltas(one), deltas(two), deltas(tmp_path / "out")
    assert found.error < 1e-6  # ranks 4 and 2 fit into 6
    for layer, delta in out.items():
        torch.testing.assert_close(delta, 0.75 * first[layer] + 0.25 * second[layer], rtol=1e-4, atol=1e-6)


def test_cut_to_a_lower_rank_it_is_the_nearest_and_the_loss_is_what_is_said(make: Make, tmp_path: Path) -> None:
    import torch

    from pawl.training.merging_peft import merge

    one, two = make(1), make(2)
    found = merge([one, two], [0.5, 0.5], tmp_path / "out", method="linear", density=0.5, rank=4)
    first, second, out = deltas(one), deltas(two), deltas(tmp_path / "out")
    wanted = {n: (first[n] + second[n]) / 2 for n in first}
    lost = sum(float(((wanted[n] - out[n]) ** 2).sum()) for n in out)
    whole = sum(float((w**2).sum()) for w in wanted.values())
    assert 0.1 < found.error == pytest.approx((lost / whole) ** 0.5, rel=1e-3)
    worst = max(out, key=lambda n: float(((wanted[n] - out[n]) ** 2).sum() / (wanted[n] ** 2).sum()))
    assert worst.endswith(found.worst_layer)
    best = torch.linalg.svdvals(wanted[worst])
    assert found.worst == pytest.approx(float((best[4:] ** 2).sum() / (best**2).sum()) ** 0.5, rel=1e-3)
    config = json.loads((tmp_path / "out" / "adapter_config.json").read_text())
    assert (config["r"], config["lora_alpha"], config["use_rslora"]) == (4, 4, False)


def test_pefts_own_linear_is_not_that_average(base: Path, make: Make) -> None:
    """Why it is not used: another pair of factors of the same function averages to something else."""
    import torch
    from peft import PeftModel
    from safetensors.torch import load_file, save_file
    from transformers import AutoModelForCausalLM

    one = make(5)
    turned = one.with_name("turned")
    turned.mkdir()
    (turned / "adapter_config.json").write_bytes((one / "adapter_config.json").read_bytes())
    rotation = torch.linalg.qr(torch.randn(4, 4, generator=torch.Generator().manual_seed(0)))[0]
    tensors = {
        n: (rotation @ t if n.endswith(A) else t @ rotation.T).contiguous()
        for n, t in load_file(one / "adapter_model.safetensors").items()
    }
    save_file(tensors, turned / "adapter_model.safetensors")
    torch.testing.assert_close(logits(base, turned), logits(base, one), rtol=1e-3, atol=1e-4)
    plain = AutoModelForCausalLM.from_pretrained(str(base), dtype=torch.float32)
    model = PeftModel.from_pretrained(plain, str(one), adapter_name="one")
    model.load_adapter(str(turned), adapter_name="turned")
    model.add_weighted_adapter(["one", "turned"], [0.5, 0.5], "mean", combination_type="linear")
    layer = model.base_model.model.model.layers[0].mlp.down_proj
    apart = layer.get_delta_weight("mean") - layer.get_delta_weight("one")
    assert apart.norm() > 0.3 * layer.get_delta_weight("one").norm()


def test_ties_by_hand() -> None:
    import torch

    from pawl.training.merging_peft import _ties

    # Rows of a 1 x 4 change. Of each the two greatest stay: (6, -3, 0, 0) and (2, 4, 0, 0).
    one = (torch.tensor([[1.0]]), torch.tensor([[6.0, -3.0, 1.0, 0.5]]))
    two = (torch.tensor([[2.0]]), torch.tensor([[1.0, 2.0, 0.0, -0.25]]))
    b, a, lost, whole = _ties([(0.5, one), (0.5, two)], density=0.5, rank=1)
    # Signs: 0.5 * (6 + 2) > 0, 0.5 * (-3 + 4) > 0. Means of those who agree: (6 + 2) / 2, and 4 alone.
    torch.testing.assert_close(b @ a, torch.tensor([[4.0, 4.0, 0.0, 0.0]]))
    assert lost == pytest.approx(0, abs=1e-9) and whole == pytest.approx(32)


def test_ties_on_wide_layers_is_the_same_every_time_and_near_the_best() -> None:
    import torch

    from pawl.training import merging_peft

    torch.manual_seed(1)
    pairs = [(0.5, (torch.randn(60, 4), torch.randn(4, 80))) for _ in range(2)]
    *_, best, whole = merging_peft._ties(pairs, 0.3, 6)
    state = torch.get_rng_state()
    b, a, lost, _ = merging_peft._ties(pairs, 0.3, 6, exact_up_to=8)
    again, *_ = merging_peft._ties(pairs, 0.3, 6, exact_up_to=8)
    torch.testing.assert_close(again, b, rtol=0, atol=0)
    assert torch.equal(torch.get_rng_state(), state)
    assert best <= lost * (1 + 1e-5) and lost - best < 0.01 * whole
    assert b.shape == (60, 6) and a.shape == (6, 80)


def test_layers_that_one_adapter_has_not_count_as_unchanged(base: Path, make: Make, tmp_path: Path) -> None:
    import torch

    from pawl.training.merging_peft import merge_adapters

    one, two = make(1), make(2, target_modules=["q_proj"])
    note = merge_adapters([one, two], [0.5, 0.5], one.with_name("m"), method="linear", density=0.5, rank=8)
    assert note.startswith("merged (linear): 0.50 ") and "% of the change" in note
    first, out = deltas(one), deltas(one.with_name("m"))
    name = next(n for n in out if n.endswith("k_proj"))
    torch.testing.assert_close(out[name], 0.5 * first[name], rtol=1e-4, atol=1e-6)
    assert len(out) == 14
    logits(base, one.with_name("m"))


def test_written_over_one_of_its_own(make: Make, tmp_path: Path) -> None:
    import shutil

    from pawl.training.merging_peft import merge

    target = tmp_path / "adapter"
    shutil.copytree(make(1), target)
    (target / "README.md").write_text("of the unmerged one")
    before = deltas(target)
    merge([target, make(2)], [0.5, 0.5], target, method="linear", density=0.5, rank=4)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["adapter"]
    assert sorted(p.name for p in target.iterdir()) == ["adapter_config.json", "adapter_model.safetensors"]
    assert any((deltas(target)[n] - before[n]).norm() > 1e-3 for n in before)


def test_what_does_not_belong_together_is_refused(make: Make, tmp_path: Path) -> None:
    from pawl.training.merging_peft import merge

    def refused(match: str, *folders: Path) -> None:
        with pytest.raises(ModelFileError, match=match):
            merge(folders, [0.5] * len(folders), tmp_path / "out", method="linear", density=0.5, rank=4)
        assert not (tmp_path / "out").exists()

    one, other = make(1), make(2)
    config = json.loads((other / "adapter_config.json").read_text())
    (other / "adapter_config.json").write_text(json.dumps(config | {"base_model_name_or_path": "larger"}))
    refused("different base models", one, other)
    refused("no plain LoRA", one, make(3, use_dora=True))
    broken = make(4)
    path = broken / "adapter_model.safetensors"
    path.write_bytes(path.read_bytes()[:-5])
    refused("fetch it from the registry again", one, broken)
    refused("cannot be read", one, tmp_path / "none")
    with pytest.raises(ModelFileError, match="one weight"):
        merge([one], [0.5, 0.5], tmp_path / "out", method="linear", density=0.5, rank=4)
