"""The example specs of infra/: fleets that load, figures that the plan's arithmetic gives, accelerate's own parser."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pawl.fleet.load_yaml import load
from pawl.training import plan
from pawl.training.licences import licence_of
from pawl.training.plan import Load
from pawl.training.plan_transformers import shape_in
from pawl.training.policy import check

# Of their config.json files, what decides memory.
CONFIGS: dict[str, dict[str, Any]] = {
    "phi-4": {
        "model_type": "phi3", "hidden_size": 5120, "intermediate_size": 17920, "num_hidden_layers": 40,
        "num_attention_heads": 40, "num_key_value_heads": 10, "vocab_size": 100352, "tie_word_embeddings": False,
        "pad_token_id": 100349, "bos_token_id": 100257, "eos_token_id": 100265,
    },
    "qwen2.5-coder-14b": {
        "model_type": "qwen2", "hidden_size": 5120, "intermediate_size": 13824, "num_hidden_layers": 48,
        "num_attention_heads": 40, "num_key_value_heads": 8, "vocab_size": 152064, "tie_word_embeddings": False,
    },
    "devstral-small": {
        "model_type": "mistral", "hidden_size": 5120, "intermediate_size": 32768, "num_hidden_layers": 40,
        "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 128, "vocab_size": 131072,
        "tie_word_embeddings": False,
    },
    "granite-8b": {
        "model_type": "granite", "hidden_size": 4096, "intermediate_size": 12800, "num_hidden_layers": 40,
        "num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 49159, "tie_word_embeddings": True,
    },
}  # fmt: skip


def test_every_example_fleet_has_a_config_here(root: Path) -> None:
    assert {p.stem for p in (root / "infra" / "fleets").glob("*.yaml")} == set(CONFIGS)


@pytest.mark.parametrize("name", sorted(CONFIGS))
def test_a_fleet_loads_is_allowed_and_its_figures_are_the_plans(root: Path, tmp_path: Path, name: str) -> None:
    path = root / "infra" / "fleets" / f"{name}.yaml"
    fleet = load(path)
    base, (agent,) = fleet.base_model, fleet.agents
    assert check(fleet.policy, agent, base.source, licence_of(base.source, None, base.licence), None) == []
    (tmp_path / "config.json").write_text(json.dumps(CONFIGS[name]))
    shape, spec = shape_in(tmp_path), agent.training
    most = Load(rows=spec.batch_size, longest=spec.max_tokens, completion=spec.batch_size * spec.max_tokens // 2)
    needed = plan.memory(shape, spec, most, cuda=True, half=True)
    text = path.read_text()
    figures = re.search(
        r"([\d.]+)B parameters, ([\w.-]+)\n.*?(\d+) examples of ([\d,]+) tokens at once: about (\d+) GB.*"
        r"GPU with (\d+) GB.*\n.*about (\d+) GB for the weights",
        text,
    )
    assert figures is not None, text
    billions, licence, rows, tokens, memory, gpu, serving = figures.groups()
    assert float(billions) == round(shape.parameters / 1e9, 1) and licence == base.licence
    assert (int(rows), int(tokens.replace(",", ""))) == (spec.batch_size, spec.max_tokens)
    assert int(memory) == round(needed.total / 1e9) < int(gpu)
    assert int(serving) == round(2 * shape.parameters / 1e9)


@pytest.fixture
def environment() -> Iterator[None]:
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)


def launched(path: Path) -> Any:
    """What `accelerate launch` makes of a config, up to the point where it would start processes."""
    from accelerate.commands.launch import _validate_launch_command, launch_command_parser

    given = launch_command_parser().parse_args(["--config_file", str(path), "script.py"])
    return _validate_launch_command(given)[0]


def test_accelerate_takes_the_config_for_one_gpu(root: Path, environment: None) -> None:
    found = launched(root / "infra" / "accelerate" / "one_gpu.yaml")
    assert not found.use_fsdp and not found.multi_gpu and not found.cpu
    assert (found.num_processes, found.mixed_precision) == (1, "bf16")


def test_accelerate_takes_the_config_for_several_gpus(root: Path, environment: None) -> None:
    from accelerate import FullyShardedDataParallelPlugin
    from accelerate.utils.launch import prepare_multi_gpu_env

    found = launched(root / "infra" / "accelerate" / "fsdp.yaml")
    assert found.use_fsdp and (found.num_processes, found.mixed_precision) == (4, "bf16")
    os.environ.update({k: v for k, v in prepare_multi_gpu_env(found).items() if k.startswith("FSDP")})
    plugin = FullyShardedDataParallelPlugin()  # as each process makes it
    assert plugin.fsdp_version == 2 and plugin.reshard_after_forward and plugin.activation_checkpointing
    assert plugin.cpu_ram_efficient_loading and plugin.state_dict_type.name == "FULL_STATE_DICT"
