"""Learning from pairs on a tiny random Llama: where it starts, what it learns, what a kill costs. No downloads."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pawl.curation.dataset import Pair
from pawl.errors import ResourceError, TrainingFailed
from pawl.fleet.training import PreferenceSpec
from pawl.training.chat_format_transformers import ChatFormat
from pawl.training.preference_trl import prefer
from pawl.training.preferences import Rated, Sides, class_weights, fitting, order, rated, strangers
from pawl.training.result import Progress, StageResult
from tests.unit.test_peft_trainer import make_base

SPEC = PreferenceSpec(learning_rate=3e-2, batch_size=4, epochs=3, min_pairs=1)


def make_pairs(count: int = 32) -> list[Pair]:
    """`yes yes` is better than `no` after even words, and worse after odd ones; all prompts differ."""
    return [
        Pair(
            id=f"p{i}",
            messages=[{"role": "user", "content": f"w{i % 8} " * (1 + i // 8)}],
            chosen="yes yes" if i % 2 == 0 else "no",
            rejected="no" if i % 2 == 0 else "yes yes",
            gap=1.0,
            origin="correction",
            source=f"s{i}",
            split="train",
            interactions=(f"i{i}",),
        )
        for i in range(count)
    ]


def make_model(base: Path, **config: Any) -> Any:
    """An adapter that says something already: both of its matrices are random."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(3)
    core = AutoModelForCausalLM.from_pretrained(str(base), dtype=torch.float32, attn_implementation="eager")
    adapter = LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", task_type="CAUSAL_LM", **config)
    model = get_peft_model(core, adapter)
    for name, p in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(p, std=0.1)
    return model


def run(
    base: Path,
    folder: Path,
    *,
    model: Any = None,
    pairs: list[Pair] | None = None,
    on_progress: Callable[[Progress], None] = lambda _: None,
    max_tokens: int = 64,
    half: bool = False,
    **spec: Any,
) -> tuple[Any, StageResult]:
    import torch

    model = make_model(base) if model is None else model
    result = prefer(
        model,
        ChatFormat(base),
        make_pairs() if pairs is None else pairs,
        SPEC.model_copy(update=spec),
        folder,
        base_dir=base,
        max_tokens=max_tokens,
        seed=17,
        dtype=torch.bfloat16 if half else torch.float32,
        on_progress=on_progress,
    )
    return model, result


def answers(base: Path, model: Any, pair: Pair, text: str) -> float:
    """log p(text | prompt), as an independent look at what was learnt."""
    import torch

    e = ChatFormat(base).pair(pair.messages, text)
    ids = torch.tensor([e.input_ids])
    with torch.no_grad():
        logs = model(input_ids=ids).logits[0, :-1].log_softmax(-1)
    picked = logs.gather(1, ids[0, 1:, None])[:, 0]
    return float(picked[torch.tensor(e.labels[1:]) != -100].sum())


def weights(model: Any) -> dict[str, Any]:
    return {n: p.detach().clone() for n, p in model.named_parameters() if p.requires_grad}


def assert_same(one: dict[str, Any], two: dict[str, Any]) -> None:
    import torch

    assert one.keys() == two.keys() and one
    for name in one:
        torch.testing.assert_close(one[name], two[name], rtol=1e-4, atol=1e-6)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_base(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="module")
def whole(base: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], StageResult]:
    """An uninterrupted stage, to compare with."""
    model, result = run(base, tmp_path_factory.mktemp("whole"))
    return weights(model), result


def test_dpo_begins_at_ln_2_because_the_reference_is_the_adapter_it_starts_from(base: Path, tmp_path: Path) -> None:
    said: list[Progress] = []
    run(base, tmp_path, on_progress=said.append)
    # float32's ln 2, to the last bit: policy and reference are one and the same.
    assert said[0].loss == pytest.approx(math.log(2), abs=1e-7)
    assert [p.step for p in said] == list(range(1, 25)) and {p.stage for p in said} == {"preferences"}
    assert said[-1].loss < 0.5 and said[-1].tokens_per_s > 0 and said[-1].memory_mb > 0


@pytest.mark.parametrize("full", [False, True])
def test_in_bfloat16_too_policy_and_reference_agree_at_the_start(base: Path, tmp_path: Path, full: bool) -> None:
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(str(base), dtype=torch.bfloat16, attn_implementation="eager")
    if not full:
        model = get_peft_model(model, LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM"))
        for name, p in model.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(p, std=0.1)
    said: list[Progress] = []
    run(base, tmp_path, model=model, half=True, epochs=1, on_progress=said.append, learning_rate=1e-3)
    assert said[0].loss == pytest.approx(math.log(2), abs=1e-6)


def test_the_loss_is_dpos_against_the_start_and_not_against_the_base(base: Path, tmp_path: Path) -> None:
    """One step with a known learning rate, and the second loss computed by hand from both models."""
    pairs = make_pairs(8)
    said: list[Progress] = []
    after: dict[int, list[tuple[float, float]]] = {}
    model = make_model(base)
    start = [(answers(base, model, p, p.chosen), answers(base, model, p, p.rejected)) for p in pairs]

    def look(p: Progress) -> None:
        said.append(p)
        model.eval()
        after[p.step] = [(answers(base, model, q, q.chosen), answers(base, model, q, q.rejected)) for q in pairs]
        model.train()

    run(base, tmp_path, model=model, pairs=pairs, on_progress=look, batch_size=8, beta=0.5, learning_rate=3e-3)
    assert len(said) == 3
    for step in (1, 2):
        gaps = [0.5 * ((c - c0) - (r - r0)) for (c, r), (c0, r0) in zip(after[step], start, strict=True)]
        expected = sum(math.log1p(math.exp(-g)) for g in gaps) / len(gaps)
        assert said[step].loss == pytest.approx(expected, rel=1e-4)
    assert said[2].loss < math.log(2) - 1e-3


def test_the_better_answer_rises_over_the_worse_one(base: Path, tmp_path: Path) -> None:
    model = make_model(base)
    pairs = make_pairs()

    def lead() -> float:
        return sum(answers(base, model, p, p.chosen) - answers(base, model, p, p.rejected) for p in pairs) / len(pairs)

    before = lead()
    _, result = run(base, tmp_path, model=model, pairs=pairs)
    assert lead() > before + 2
    assert result.steps == 24 and result.items == 32 and result.loss_last < result.loss_first
    assert "reward margin" in result.note and "reward accuracy 1.000" in result.note


def test_it_leaves_the_model_as_it_found_it_but_for_the_weights(base: Path, tmp_path: Path) -> None:
    model = make_model(base)
    names, core = list(weights(model)), model.get_base_model()
    frozen = {n: p.clone() for n, p in model.named_parameters() if not p.requires_grad}
    run(base, tmp_path, model=model, epochs=1)
    assert list(weights(model)) == names and list(model.peft_config) == ["default"]
    assert model.active_adapter == "default" and "forward" not in core.__dict__
    assert all(bool((p == frozen[n]).all()) for n, p in model.named_parameters() if n in frozen)
    saved = {p.name for p in (tmp_path / "checkpoint-8").iterdir()}
    assert {"adapter_model.safetensors", "optimizer.pt", "trainer_state.json"} <= saved
    assert not saved & {"README.md", "ref", "tokenizer.json", "model.safetensors"}
    assert not (tmp_path / "README.md").exists()
    # And so the next stage can run on it, from where this one has ended.
    said: list[Progress] = []
    run(base, tmp_path / "next", model=model, epochs=1, on_progress=said.append)
    assert said[0].loss == pytest.approx(math.log(2), abs=1e-7)


def test_kto_learns_from_single_answers(base: Path, tmp_path: Path) -> None:
    model = make_model(base)
    pairs = make_pairs()
    before = [answers(base, model, p, p.chosen) - answers(base, model, p, p.rejected) for p in pairs]
    said: list[Progress] = []
    _, result = run(base, tmp_path, model=model, method="kto", on_progress=said.append)
    after = [answers(base, model, p, p.chosen) - answers(base, model, p, p.rejected) for p in pairs]
    assert said[0].loss == pytest.approx(0.5, abs=1e-6)  # 1 - sigmoid(0): the same reference
    assert result.items == 64 and result.steps == 24 and "reward margin" in result.note
    assert result.loss_last < 0.47 and sum(after) > sum(before) + 2 * len(pairs)


@pytest.mark.parametrize("method", ["dpo", "kto"])
def test_full_weights_have_themselves_as_reference(base: Path, tmp_path: Path, method: str) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(str(base), dtype=torch.float32, attn_implementation="eager")
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.05 * torch.randn_like(p))  # no longer what the folder holds
    said: list[Progress] = []
    run(base, tmp_path, model=model, method=method, on_progress=said.append, learning_rate=1e-3)
    assert said[0].loss == pytest.approx(math.log(2) if method == "dpo" else 0.5, abs=1e-6)
    assert said[-1].loss < said[0].loss


def test_dora_has_itself_as_reference(base: Path, tmp_path: Path) -> None:
    import torch

    model = make_model(base, use_dora=True)
    with torch.no_grad():
        for name, p in model.named_parameters():
            if "magnitude" in name:
                p.mul_(1.1)
    said: list[Progress] = []
    run(base, tmp_path, model=model, on_progress=said.append, epochs=1)
    assert said[0].loss == pytest.approx(math.log(2), abs=1e-7)


def test_adalora_has_itself_as_reference_and_pruned_ranks_stay_pruned(base: Path, tmp_path: Path) -> None:
    import torch
    from peft import AdaLoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(5)
    config = AdaLoraConfig(init_r=6, target_r=4, total_step=10, target_modules="all-linear", task_type="CAUSAL_LM")
    core = AutoModelForCausalLM.from_pretrained(str(base), dtype=torch.float32, attn_implementation="eager")
    model = get_peft_model(core, config)
    with torch.no_grad():
        for name, p in model.named_parameters():
            if ".lora_E." in name:
                p.copy_(torch.randn_like(p))
                p[:2] = 0
    before = weights(model)
    said: list[Progress] = []
    run(base, tmp_path, model=model, on_progress=said.append)
    assert said[0].loss == pytest.approx(math.log(2), abs=1e-7) and said[-1].loss < 0.6
    for name, value in weights(model).items():
        assert bool((value != before[name]).any())
        assert ".lora_E." not in name or (not value[:2].any() and bool(value[2:].all()))
    assert model.active_adapter == "default" and "forward" not in core.__dict__


def test_many_tokens_a_step_are_computed_twice_to_the_same_result(
    base: Path, tmp_path: Path, whole: tuple[dict[str, Any], StageResult], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pawl.training.preference_trl._HELD_TOKENS", 1)
    model, result = run(base, tmp_path)
    assert not model.is_gradient_checkpointing
    assert_same(weights(model), whole[0])
    assert result.loss_last == pytest.approx(whole[1].loss_last, rel=1e-4)


def test_killed_it_resumes_to_the_same_weights(
    base: Path, tmp_path: Path, whole: tuple[dict[str, Any], StageResult]
) -> None:
    code = """
        import os, signal, sys
        from pathlib import Path
        from tests.unit.test_preference_trl import run

        def kill(p):
            if p.step == 17:
                os.kill(os.getpid(), signal.SIGKILL)

        run(Path(sys.argv[1]), Path(sys.argv[2]), on_progress=kill)
    """
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), str(base), str(tmp_path)],
        env=environment,
        cwd=Path(__file__).parents[2],
        timeout=120,
    )
    assert done.returncode == -signal.SIGKILL
    # What a kill in the middle of a checkpoint leaves behind: newer, and not whole.
    broken = tmp_path / "checkpoint-19"
    broken.mkdir()
    (broken / "adapter_model.safetensors").write_bytes(b"\x40")
    said: list[Progress] = []
    model, result = run(base, tmp_path, on_progress=said.append)
    assert result.resumed_at == 10 and said[0].step == 11 and result.steps == 24
    assert_same(weights(model), whole[0])
    assert result.loss_first == whole[1].loss_first and result.tokens == whole[1].tokens
    # Once finished, its last checkpoint is its result.
    again, result = run(base, tmp_path, on_progress=said.append)
    assert result.resumed_at == 24 and said[-1].step == 24 and len(said) == 14
    assert result.loss_last == pytest.approx(whole[1].loss_last, rel=1e-4)
    assert_same(weights(again), whole[0])
    # Of another start nothing is taken over.
    _, result = run(base, tmp_path, model=again, epochs=1)
    assert result.resumed_at == 0 and result.steps == 8


@pytest.mark.parametrize("method", ["kto", "full"])
def test_interrupted_otherwise_it_resumes_to_the_same_weights(base: Path, tmp_path: Path, method: str) -> None:
    from transformers import AutoModelForCausalLM

    class Stop(Exception):
        pass

    def stop(p: Progress) -> None:
        if p.step == 17:
            raise Stop

    def go(folder: Path, on_progress: Callable[[Progress], None]) -> tuple[Any, StageResult]:
        if method == "kto":
            return run(base, folder, on_progress=on_progress, method="kto")
        model = AutoModelForCausalLM.from_pretrained(str(base), attn_implementation="eager")
        return run(base, folder, model=model, on_progress=on_progress, learning_rate=1e-3)

    with pytest.raises(Stop):
        go(tmp_path / "a", stop)
    one, result = go(tmp_path / "a", lambda _: None)
    assert result.resumed_at == 10
    assert_same(weights(one), weights(go(tmp_path / "b", lambda _: None)[0]))


def test_too_few_pairs_leave_the_stage_out(base: Path, tmp_path: Path) -> None:
    model = make_model(base)
    before = weights(model)
    _, result = run(base, tmp_path, model=model, pairs=make_pairs(9), min_pairs=10)
    assert result.steps == 0 and result.items == 0
    assert "9 pairs are fewer than training.preference.min_pairs 10" in result.note
    assert_same(before, weights(model))
    assert run(base, tmp_path, pairs=[])[1].steps == 0


def test_only_the_training_split_and_what_fits_is_learnt(base: Path, tmp_path: Path) -> None:
    import msgspec

    pairs = make_pairs(12)
    pairs[3] = msgspec.structs.replace(pairs[3], split="test")
    pairs[4] = msgspec.structs.replace(pairs[4], rejected="no " * 70)
    _, result = run(base, tmp_path, pairs=pairs, epochs=1)
    assert result.items == 10 and result.note.startswith("1 pairs with an answer longer than 64 tokens left out; ")
    _, result = run(base, tmp_path, pairs=pairs, epochs=1, method="kto")
    assert result.items == 21  # the long pair's better answer fits


def test_a_loss_that_is_not_a_number_stops_it(base: Path, tmp_path: Path) -> None:
    with pytest.raises(TrainingFailed, match=r"lower training\.preference\.learning_rate"):
        run(base, tmp_path, learning_rate=1e38)
    broken = make_model(base)
    next(p for p in broken.parameters() if p.requires_grad).data.fill_(math.nan)
    with pytest.raises(TrainingFailed, match="loss became nan at step 1 of 24"):
        run(base, tmp_path / "n", model=broken)


@pytest.mark.parametrize("name", ["optimizer.pt", "trainer_state.json"])
def test_a_full_disk_says_so_and_leaves_the_last_good_checkpoint(base: Path, tmp_path: Path, name: str) -> None:
    def fill(p: Progress) -> None:
        if p.step == 20:
            full = tmp_path / "checkpoint-20"
            full.mkdir()
            (full / name).symlink_to("/dev/full")  # every write there fails as on a full disk

    with pytest.raises(ResourceError, match="free space and run again"):
        run(base, tmp_path, on_progress=fill)
    (tmp_path / "checkpoint-20" / name).unlink()
    _, result = run(base, tmp_path)
    assert result.resumed_at in (10, 20) and result.steps == 24


SIDES = st.builds(
    Sides,
    st.lists(st.integers(0, 5), min_size=1, max_size=4),
    st.lists(st.integers(0, 5), min_size=1, max_size=4),
    st.lists(st.integers(0, 5), min_size=1, max_size=4),
)


@given(st.lists(SIDES, max_size=30), st.integers(1, 9))
def test_fitting_keeps_exactly_the_pairs_that_fit(pairs: list[Sides], most: int) -> None:
    kept = fitting(pairs, most)
    assert kept == [p for p in pairs if max(len(p.prompt + p.chosen), len(p.prompt + p.rejected)) <= most]


@given(st.lists(SIDES, max_size=30))
def test_single_answers_come_once_and_do_not_contradict(pairs: list[Sides]) -> None:
    items = rated(pairs, 100)
    keys = [(tuple(i.prompt), tuple(i.completion)) for i in items]
    assert len(set(keys)) == len(keys)
    good = {(tuple(p.prompt), tuple(p.chosen)) for p in pairs}
    bad = {(tuple(p.prompt), tuple(p.rejected)) for p in pairs}
    assert set(keys) == good ^ bad and all(((k in good) == i.good) for k, i in zip(keys, items, strict=True))
    counts = sum(i.good for i in items), sum(not i.good for i in items)
    weigh = class_weights(items)
    assert min(weigh) == 1.0
    if all(counts):
        assert weigh[0] * counts[0] == pytest.approx(weigh[1] * counts[1])


@settings(max_examples=200)
@given(st.integers(2, 40), st.floats(0.05, 4), st.integers(1, 9), st.integers(0, 99), st.booleans())
def test_the_order_of_pairs(count: int, epochs: float, size: int, seed: int, kto: bool) -> None:
    group, least = (2 * size, 2) if kto else (size, 1)
    found = order(count, epochs, group, least, seed)
    assert found == order(count, epochs, group, least, seed)
    assert (
        max(2 if kto else 1, round(count * epochs) - 1) <= len(found) <= max(min(group, count), round(count * epochs))
    )
    assert not kto or len(found) % group != 1
    for at in range(0, len(found), count):
        epoch = found[at : at + count]
        assert len(set(epoch)) == len(epoch) and set(epoch) <= set(range(count))


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 9)), min_size=1, max_size=20), st.integers(2, 6))
def test_strangers_answer_another_prompt_of_the_same_step(made: list[tuple[int, int]], group: int) -> None:
    items = [Rated([x], [y], True) for x, y in made]
    for at, other in enumerate(strangers(items, group)):
        batch = items[at - at % group : at - at % group + group]
        allowed = [i.completion for i in batch if i.prompt != items[at].prompt]
        assert other in (allowed or [i.completion for i in batch])
