"""A base with quantised weights: accepted once what it costs is measured, and trained on as what it is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from pawl.curation import dataset as datasets
from pawl.curation.dataset import DatasetVersion
from pawl.errors import ConfigError, ModelFileError
from pawl.evaluation.report import Interval
from pawl.improvement.base_quality import demand_measured, measure_base
from pawl.improvement.workplace import Workplace
from pawl.settings import Settings
from pawl.training.peft_trainer import train
from pawl.training.quantised_base import BaseQuality, problem, quantisation_of
from pawl.training.quantised_base_transformers import load_base
from tests.unit.test_peft_trainer import SPEC, make_base, make_dataset

FLEET = """
base_model: {{source: {source}, unquantised: {unquantised}, max_quality_loss: {most}}}
upstreams: {{local: {{preset: vllm}}}}
agents: [{{name: tiny, task: generic}}]
"""


def quantise(base: Path, out: Path, bits: int) -> Path:
    """Weights in integers of so many bits, one scale a row, packed and saved by compressed-tensors."""
    import torch
    from compressed_tensors import ModelCompressor
    from compressed_tensors.quantization import (
        QuantizationArgs,
        QuantizationConfig,
        QuantizationScheme,
        QuantizationStatus,
        apply_quantization_config,
    )
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(str(base), dtype=torch.float32)
    weights = QuantizationArgs(num_bits=bits, symmetric=True, strategy="channel")
    config = QuantizationConfig(
        config_groups={"all": QuantizationScheme(targets=["Linear"], weights=weights)},
        ignore=["lm_head"],
        format="pack-quantized",
    )
    apply_quantization_config(model, config)
    for module in model.modules():
        if hasattr(module, "weight_scale"):
            most = module.weight.abs().amax(1, keepdim=True) / (2 ** (bits - 1) - 1)
            module.weight_scale.data = most.to(module.weight_scale.dtype)
            module.quantization_status = QuantizationStatus.FROZEN
    compressor = ModelCompressor.from_pretrained_model(model)
    assert compressor is not None
    compressor.compress_model(model)
    model.save_pretrained(str(out))
    compressor.update_config(str(out))
    AutoTokenizer.from_pretrained(str(base)).save_pretrained(str(out))
    return out


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    folder = tmp_path_factory.mktemp("models")
    whole = make_base(folder / "whole")
    return {0: whole, 4: quantise(whole, folder / "four", 4), 8: quantise(whole, folder / "eight", 8)}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    version = datasets.load(make_dataset(tmp_path / "first"))
    split: tuple[Any, ...] = tuple(
        msgspec.structs.replace(e, split="validation") if n % 4 == 0 else e for n, e in enumerate(version.examples)
    )
    return datasets.save(DatasetVersion(agent="tiny", examples=split, sources=()), tmp_path)


def place(tmp_path: Path, source: Path, unquantised: Path | None, most: float = 0.05) -> Workplace:
    fleet = tmp_path / "fleet.yaml"
    fleet.write_text(FLEET.format(source=source, unquantised=unquantised or "null", most=most))
    return Workplace(Settings(home=tmp_path / "home", fleet=fleet), "tiny")


def test_what_it_costs_is_measured_and_eight_bits_cost_less_than_four(
    bases: dict[int, Path], data: Path, tmp_path: Path
) -> None:
    lost = {bits: measure_base(place(tmp_path, bases[bits], bases[0]), data) for bits in (4, 8)}
    four, eight = lost[4], lost[8]
    assert four and eight and four.method == "compressed-tensors" and four.examples == 10
    assert abs(eight.lost.mean) < abs(four.lost.mean) and eight.reference_loss == four.reference_loss
    assert four.loss - four.reference_loss == pytest.approx(four.lost.mean, abs=1e-6)
    assert measure_base(place(tmp_path, bases[0], None), data) is None


def test_a_quantised_base_is_refused_until_that_is_measured_and_small_enough(
    bases: dict[int, Path], data: Path, tmp_path: Path
) -> None:
    wide = place(tmp_path, bases[4], bases[0], most=5.0)
    with pytest.raises(ModelFileError, match="pawl base-quality"):
        demand_measured(wide, bases[4])
    measure_base(wide, data)
    demand_measured(wide, bases[4])
    demand_measured(wide, bases[0])
    with pytest.raises(ConfigError, match="unquantised"):
        measure_base(place(tmp_path, bases[4], None), data)


def test_too_much_is_said_with_its_interval() -> None:
    kept = BaseQuality(
        method="gptq", base_sha256="a", reference_sha256="b", dataset="d", examples=40, loss=1.2, reference_loss=1.0,
        lost=Interval(0.2, 0.1, 0.3),
    )  # fmt: skip
    assert "0.200 nats a token [0.100, 0.300] on 40 examples" in str(problem("gptq", kept, 0.05))
    assert problem("gptq", kept, 0.25) is None and problem("", None, 0.0) is None


def test_an_adapter_is_trained_on_a_quantised_base(bases: dict[int, Path], data: Path, tmp_path: Path) -> None:
    import torch

    assert quantisation_of(bases[4]) and not quantisation_of(bases[0])
    result = train(data, SPEC, bases[4], tmp_path / "run", start_adapter=None, on_progress=lambda _: None)
    assert result.loss_last < result.loss_first * 0.7
    one, two = (load_base(bases[n], torch.float32).model.layers[0].mlp.up_proj.weight for n in (4, 0))
    levels = (one / one.abs().amax(1, keepdim=True) * 7).round(decimals=3)
    assert torch.equal(levels, levels.round()) and not torch.equal(one, two)
