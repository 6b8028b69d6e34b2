"""The trainer on a tiny random Llama: resuming, continuing, refusing. Seconds, no downloads."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

from pawl.curation import dataset as datasets
from pawl.curation.dataset import DatasetVersion, Example
from pawl.errors import LakeError, ModelFileError, NotEnoughData, TrainingFailed
from pawl.fleet.training import TrainingSpec
from pawl.training.losses_torch import completion_loss
from pawl.training.peft_trainer import train
from pawl.training.result import Progress
from pawl.training.run_folder import last_checkpoint

SPEC = TrainingSpec(rank=4, alpha=8, learning_rate=3e-2, batch_size=4, epochs=3, max_tokens=64)


def make_base(folder: Path) -> Path:
    """A random two-layer Llama with a word-level tokenizer and a chat template."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    words = ["<unk>", "<|im_start|>", "<|im_end|>", "system", "user", "assistant", "?", "answered", "yes", "no"]
    words += [f"w{i}" for i in range(54)]
    raw = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="<unk>"))
    raw.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=raw, unk_token="<unk>", eos_token="<|im_end|>", additional_special_tokens=["<|im_start|>"]
    )
    tokenizer.chat_template = (
        "{% for m in messages %}<|im_start|> {{ m['role'] }} {{ m['content'] }} <|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|> assistant {% endif %}"
    )
    tokenizer.save_pretrained(str(folder))
    torch.manual_seed(1)
    config = LlamaConfig(
        vocab_size=len(words),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        pad_token_id=2,
        eos_token_id=2,
        tie_word_embeddings=True,
        initializer_range=0.2,
    )
    LlamaForCausalLM(config).save_pretrained(str(folder))
    (folder / "README.md").write_text("---\nlicense: apache-2.0\n---\n")
    return folder


def make_dataset(folder: Path, count: int = 40) -> Path:
    """Answer `yes` to even words and `no` to odd ones, so that there is something to learn."""
    examples = tuple(
        Example(
            id=f"e{i}",
            messages=[{"role": "user", "content": f"w{i % 54} " * (1 + i % 7)}],
            completion="yes yes" if i % 2 == 0 else "no",
            quality=1.0,
            source=f"s{i}",
            interactions=(f"i{i}",),
        )
        for i in range(count)
    )
    version = DatasetVersion(agent="tiny", examples=examples, sources=())
    return datasets.save(version, folder)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_base(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_dataset(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def whole(base: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An uninterrupted run, to compare with."""
    out = tmp_path_factory.mktemp("whole")
    train(data, SPEC, base, out, start_adapter=None, on_progress=lambda _: None)
    return out


def weights(out: Path) -> dict[str, Any]:
    from safetensors.torch import load_file

    return load_file(out / "adapter" / "adapter_model.safetensors")


def assert_same(a: Path, b: Path) -> None:
    import torch

    one, two = weights(a), weights(b)
    assert one.keys() == two.keys()
    for name in one:
        torch.testing.assert_close(one[name], two[name], rtol=1e-4, atol=1e-6)


def test_learns_and_reports(base: Path, data: Path, tmp_path: Path) -> None:
    said: list[Progress] = []
    result = train(data, SPEC, base, tmp_path, start_adapter=None, on_progress=said.append)
    assert [p.step for p in said] == list(range(1, 31)) and all(p.steps == 30 for p in said)
    assert result.steps == 30 and result.examples == 40 and result.dropped == 0
    assert result.loss_last < result.loss_first * 0.7
    assert said[-1].tokens_per_s > 0 and said[-1].learning_rate < max(p.learning_rate for p in said)
    assert not (tmp_path / "stages").exists()
    config = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "tiny" and config["r"] == 4 and config["lora_alpha"] == 8
    assert str(tmp_path.parent) not in json.dumps(config)
    assert {n.split(".")[-3] for n in weights(tmp_path)} >= {"q_proj", "down_proj"}


def test_a_finished_run_is_not_repeated(base: Path, data: Path, whole: Path) -> None:
    said: list[Progress] = []
    again = train(data, SPEC, base, whole, start_adapter=None, on_progress=said.append)
    assert said == [] and again.steps == 30


def test_interrupted_by_an_exception_it_resumes_to_the_same_weights(
    base: Path, data: Path, whole: Path, tmp_path: Path
) -> None:
    class Stop(Exception):
        pass

    def stop(p: Progress) -> None:
        if p.step == 17:
            raise Stop

    with pytest.raises(Stop):
        train(data, SPEC, base, tmp_path, start_adapter=None, on_progress=stop)
    said: list[Progress] = []
    result = train(data, SPEC, base, tmp_path, start_adapter=None, on_progress=said.append)
    assert said[0].step == 11 and result.resumed_at == 10 and result.steps == 30
    assert_same(tmp_path, whole)


def test_killed_it_resumes_to_the_same_weights(base: Path, data: Path, whole: Path, tmp_path: Path) -> None:
    code = """
        import os, signal, sys
        from pathlib import Path
        from pawl.fleet.training import TrainingSpec
        from pawl.training.peft_trainer import train

        def kill(p):
            if p.step == 23:
                os.kill(os.getpid(), signal.SIGKILL)

        data, base, out, spec = sys.argv[1:]
        train(Path(data), TrainingSpec.model_validate_json(spec), Path(base), Path(out), start_adapter=None,
              on_progress=kill)
    """
    arguments = [str(data), str(base), str(tmp_path), SPEC.model_dump_json()]
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code), *arguments], env=environment, timeout=120)
    assert done.returncode == -signal.SIGKILL
    # What a kill in the middle of a checkpoint leaves behind: newer, and not whole.
    broken = tmp_path / "stages" / "examples" / "checkpoints" / "checkpoint-29"
    broken.mkdir()
    (broken / "adapter_model.safetensors").write_bytes(b"\x40")
    result = train(data, SPEC, base, tmp_path, start_adapter=None, on_progress=lambda _: None)
    assert result.resumed_at == 20
    assert_same(tmp_path, whole)


def test_another_spec_begins_anew(base: Path, data: Path, tmp_path: Path) -> None:
    def stop(p: Progress) -> None:
        if p.step == 12:
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        train(data, SPEC, base, tmp_path, start_adapter=None, on_progress=stop)
    assert last_checkpoint(tmp_path / "stages" / "examples" / "checkpoints") is not None
    other = SPEC.model_copy(update={"epochs": 0.2})
    result = train(data, other, base, tmp_path, start_adapter=None, on_progress=lambda _: None)
    assert result.steps == 2 and result.resumed_at == 0


def test_continues_from_an_adapter(base: Path, data: Path, whole: Path, tmp_path: Path) -> None:
    said: list[Progress] = []
    spec = SPEC.model_copy(update={"epochs": 0.5, "learning_rate": 1e-4})
    result = train(data, spec, base, tmp_path, start_adapter=whole / "adapter", on_progress=said.append)
    assert result.started_from == "adapter"
    first = json.loads((whole / "result.json").read_text())["loss_first"]
    assert said[0].loss < first * 0.8  # it begins where the other ended


def test_a_start_adapter_of_another_rank_or_none_at_all_is_refused(
    base: Path, data: Path, whole: Path, tmp_path: Path
) -> None:
    other = SPEC.model_copy(update={"rank": 8})
    with pytest.raises(ModelFileError, match="rank 4"):
        train(data, other, base, tmp_path, start_adapter=whole / "adapter", on_progress=lambda _: None)
    with pytest.raises(ModelFileError, match="start: base"):
        train(data, SPEC, base, tmp_path, start_adapter=tmp_path / "nothing", on_progress=lambda _: None)


def test_a_loss_that_is_not_a_number_stops_training(base: Path, data: Path, tmp_path: Path) -> None:
    wild = SPEC.model_copy(update={"learning_rate": 1e38, "warmup_share": 0.0})
    with pytest.raises(TrainingFailed, match=r"lower training\.learning_rate"):
        train(data, wild, base, tmp_path, start_adapter=None, on_progress=lambda _: None)
    assert not (tmp_path / "adapter").exists()


def test_unusable_data_is_refused(base: Path, data: Path, tmp_path: Path) -> None:
    long = make_dataset(tmp_path / "d", count=7)
    grown = datasets.load(long)
    text = "w1 " * 200
    examples = tuple(
        Example(id=e.id, messages=e.messages, completion=text, quality=1.0, source=e.source, interactions=())
        for e in grown.examples
    )
    path = datasets.save(DatasetVersion(agent="t", examples=examples, sources=()), tmp_path)
    with pytest.raises(NotEnoughData, match="max_tokens"):
        train(path, SPEC, base, tmp_path / "o", start_adapter=None, on_progress=lambda _: None)
    with pytest.raises(LakeError, match="prepare it anew"):
        train(tmp_path / "none.json", SPEC, base, tmp_path / "o", start_adapter=None, on_progress=lambda _: None)


def test_the_loss_is_that_of_the_whole_model_over_the_completion(base: Path) -> None:
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    from pawl.training.chat_format_transformers import Encoded, collate

    model = get_peft_model(
        AutoModelForCausalLM.from_pretrained(str(base), dtype=torch.float32),
        LoraConfig(r=2, target_modules="all-linear", task_type="CAUSAL_LM"),
    )
    batch = collate([Encoded([1, 4, 9, 8, 2], [-100, -100, -100, 8, 2]), Encoded([1, 9, 2], [-100, 9, 2])], pad=2)
    mask = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]])
    expected = model(input_ids=batch["input_ids"], attention_mask=mask, labels=batch["labels"]).loss
    torch.testing.assert_close(completion_loss(model, batch), expected)
