"""A version is loaded by `mlflow` alone, in a process that cannot import Pawl, and answers as base and adapter do."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from pawl.registry.mlflow_flavor import flavor
from pawl.registry.mlflow_registry import MlflowRegistry
from pawl.registry.port import Packing
from pawl.training.adapter_check import check_adapter
from tests.unit.test_peft_trainer import make_base

LOADER = """
import json, os, sys
sys.modules["pawl"] = None  # an import of it fails
import mlflow, torch
from mlflow.models import get_model_info
uri, base, words = sys.argv[1:4]
info = get_model_info(uri)
more = {"base_model_path": base} if base else {}
loaded = mlflow.transformers.load_model(uri, **more)
with torch.no_grad():
    logits = loaded.model(**loaded.tokenizer(words, return_tensors="pt")).logits
print(json.dumps({
    "kind": type(loaded.model).__name__,
    "logits": logits[0, -1].tolist(),
    "inputs": [str(c.type) for c in info.signature.inputs.inputs],
    "tokens": [p.default for p in info.signature.params.params],
    "said": loaded(words, max_new_tokens=3)[0]["generated_text"],
}))
"""
WORDS = "<|im_start|> user w1 w2 <|im_end|>"


def load(mlflow_url: str, uri: str, base: str, cwd: Path) -> dict[str, object]:
    env = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PYTHONDONTWRITEBYTECODE")}
    env |= {"MLFLOW_TRACKING_URI": mlflow_url, "HF_HUB_OFFLINE": "1", "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false"}
    done = subprocess.run(
        [sys.executable, "-c", LOADER, uri, base, WORDS], env=env, cwd=cwd, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return dict(json.loads(done.stdout.splitlines()[-1]))


@pytest.mark.servers
def test_mlflow_alone_loads_it(mlflow_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch
    from peft import LoraConfig, PeftModel, get_peft_model
    from transformers import AutoModelForCausalLM, AutoTokenizer

    monkeypatch.setenv("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    base = make_base(tmp_path / "base")
    torch.manual_seed(3)
    spec = LoraConfig(r=2, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM", init_lora_weights=False)
    get_peft_model(AutoModelForCausalLM.from_pretrained(base), spec).save_pretrained(str(tmp_path / "adapter"))
    agent, registry = "loaded-by-mlflow", MlflowRegistry(mlflow_url)
    made = registry.register(agent, tmp_path / "adapter", {}, {})
    packing = Packing(base_dir=base, base_name="somebody/tiny-base", max_tokens=77)
    for _ in range(2):  # may be repeated
        registry.describe(made, "# the card", packing)
    registry.move_alias(agent, "champion", made.number)

    with torch.no_grad():
        asked = AutoTokenizer.from_pretrained(base)(WORDS, return_tensors="pt")
        plain = AutoModelForCausalLM.from_pretrained(base)
        before = plain(**asked).logits[0, -1]
        expected = PeftModel.from_pretrained(plain, str(tmp_path / "adapter"))(**asked).logits[0, -1]
    assert not torch.allclose(before, expected, atol=1e-3), "the adapter changes the answer"
    found = load(mlflow_url, f"models:/{agent}@champion", str(base), tmp_path)
    assert found["kind"].startswith("PeftModel")  # type: ignore[attr-defined]
    assert torch.allclose(torch.tensor(found["logits"]), expected, atol=1e-4)
    assert found["inputs"] == ["DataType.string"] and found["tokens"] == [77] and WORDS.split()[2] in str(found["said"])

    # What is loaded by vLLM is the same folder: nothing in it stands in the way, and the adapter's hash is as it was.
    folder = registry.download(made, tmp_path / "found")
    assert check_adapter(folder, None).rank == 2
    assert (folder / "requirements.txt").read_text().startswith("mlflow==")
    assert str(tmp_path) not in (folder / "MLmodel").read_text(), "no path of this machine"


@pytest.mark.servers
def test_full_weights_are_loaded_without_any_base(
    mlflow_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    monkeypatch.setenv("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    base, agent, registry = make_base(tmp_path / "base"), "whole-by-mlflow", MlflowRegistry(mlflow_url)
    made = registry.register(agent, base, {}, {})
    registry.describe(made, "# the card", Packing(base_dir=base, base_name="tiny", max_tokens=8, whole=True))
    with torch.no_grad():
        asked = AutoTokenizer.from_pretrained(base)(WORDS, return_tensors="pt")
        expected = AutoModelForCausalLM.from_pretrained(base)(**asked).logits[0, -1]
    found = load(mlflow_url, f"models:/{agent}/{made.number}", "", tmp_path)
    assert found["kind"] == "LlamaForCausalLM"
    assert torch.allclose(torch.tensor(found["logits"]), expected, atol=1e-4)


def test_full_weights_are_a_model_and_no_adapter() -> None:
    whole = Packing(base_dir=Path("base"), base_name="a/base", max_tokens=1, whole=True)
    made = flavor(whole, "LlamaForCausalLM")
    assert made["model_binary"] == "." and not {"peft_adaptor", "local_base_model_path"} & made.keys()
