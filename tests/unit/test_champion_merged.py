"""The merged champion's weights are the base's with the adapter's, in a folder that is whole or absent."""

from __future__ import annotations

from pathlib import Path

import pytest

from pawl.errors import ModelFileError, NotAllowed
from pawl.improvement import champion_serving
from pawl.improvement.workplace import Workplace
from pawl.rollout.route import Arm, Route
from pawl.settings import Settings
from tests.unit.test_peft_trainer import make_base

AGENT, NAME = "an-agent", "an-agent-v1-aaaaaaaa"


@pytest.fixture
def place(tmp_path: Path) -> Workplace:
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    base = make_base(tmp_path / "tiny")
    fleet = tmp_path / "fleet.yaml"
    fleet.write_text(
        f"base_model: {{source: {base}}}\nupstreams:\n  local: {{preset: vllm}}\n"
        "agents:\n  - {name: an-agent, task: generic}\n"
    )
    made = Workplace(Settings(home=tmp_path / "home", fleet=fleet), AGENT)
    torch.manual_seed(1)
    config = LoraConfig(r=2, lora_alpha=4, target_modules="all-linear", init_lora_weights=False, task_type="CAUSAL_LM")
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32), config)
    model.save_pretrained(made.settings.adapters_dir / NAME)
    made.control.put_route(Route(agent=AGENT, champion=Arm(NAME, "local", NAME, "local")))
    return made


def test_the_merged_champion_answers_as_the_two_do(place: Workplace) -> None:
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    folder = champion_serving.write_merged_champion(place)
    assert folder.name == "an-agent-v1-merged-aaaaaaaa" and (folder / "tokenizer.json").exists()
    assert [p.name for p in folder.parent.iterdir()] == [folder.name], "nothing half-written stays"
    ids = torch.arange(3, 19).reshape(1, -1)
    base = AutoModelForCausalLM.from_pretrained(place.fleet.base_model.source, dtype=torch.float32)
    with torch.no_grad():
        without = base(ids).logits
        two = PeftModel.from_pretrained(base, str(place.settings.adapters_dir / NAME))(ids).logits
        one = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)(ids).logits
    far = (two - without).abs().max()
    assert (one - two).abs().max() < 0.05 * far, "the rest is bfloat16's rounding"
    stamp = folder.stat().st_mtime_ns
    assert champion_serving.write_merged_champion(place) == folder and folder.stat().st_mtime_ns == stamp


def test_what_cannot_be_merged_leaves_nothing(place: Workplace) -> None:
    weights = place.settings.adapters_dir / NAME / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:200])
    with pytest.raises(ModelFileError):
        champion_serving.write_merged_champion(place)
    assert list((place.settings.home / "merged").iterdir()) == []
    route = place.control.route(AGENT)
    assert route is not None
    place.control.put_route(Route(agent=AGENT, champion=Arm("base", "local", "base", "local"), revision=route.revision))
    with pytest.raises(NotAllowed, match="nothing to merge"):
        champion_serving.write_merged_champion(place)
