"""Each method of training on a tiny Llama: learnt, saved as what a server loads, resumed, refused."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from pawl.curation import dataset as datasets
from pawl.curation.dataset import DatasetVersion, Pair
from pawl.errors import ModelFileError, ResourceError
from pawl.fleet.training import AdaLoraSpec, TrainingSpec
from pawl.registry.adapter_hash import adapter_sha256
from pawl.training import adalora_peft, models_peft
from pawl.training.chat_format_transformers import IGNORED, Encoded, collate
from pawl.training.losses_torch import completion_loss, validation_losses
from pawl.training.peft_trainer import train
from pawl.training.result import Progress
from pawl.training.versions_torch import differences
from tests.unit.test_merging import deltas
from tests.unit.test_peft_trainer import SPEC, assert_same, make_base, make_dataset

ADALORA = SPEC.model_copy(
    update={"method": "adalora", "start": "base", "adalora": AdaLoraSpec(initial_rank=6, every=2)}
)
BATCH = [Encoded([1, 4, 9, 8, 2], [IGNORED] * 3 + [8, 2]), Encoded([1, 9, 2], [IGNORED, 9, 2])]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_base(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_dataset(tmp_path_factory.mktemp("data"))


def run(data: Path, spec: TrainingSpec, base: Path, out: Path, **more: Any) -> Any:
    return train(data, spec, base, out, start_adapter=None, on_progress=lambda _: None, **more)


def logits(model: Any) -> Any:
    import torch

    model.eval()
    with torch.no_grad():
        return model(input_ids=collate(BATCH, 2)["input_ids"]).logits


def served(base: Path, adapter: Path | None = None, *, rounded: Any = None) -> Any:
    """The model as a server has it, computing in float32; its weights rounded to another type before."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(str(base), dtype=rounded or torch.float32).float()
    return model if adapter is None else PeftModel.from_pretrained(model, str(adapter))


@pytest.mark.parametrize("method", ["rslora", "dora", "adalora", "full"])
def test_each_method_learns_and_leaves_what_can_be_loaded(method: str, base: Path, data: Path, tmp_path: Path) -> None:
    spec = {"rslora": SPEC, "adalora": ADALORA}.get(method, SPEC)
    rate = 3e-3 if method == "full" else SPEC.learning_rate
    more = {"method": method, "merged": method in ("dora", "full"), "learning_rate": rate}
    more |= {"start": "base"} if method == "full" else {}
    result = run(data, TrainingSpec(**{**spec.model_dump(), **more}), base, tmp_path)
    assert result.method == method and result.loss_last < result.loss_first * 0.8
    if method == "full":
        assert (tmp_path / "adapter" / "model.safetensors").exists()
        assert result.parameters == sum(p.numel() for p in served(base).parameters())
    else:
        config = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
        assert config["peft_type"] == "LORA" and config["base_model_name_or_path"] == "tiny"
        assert config["use_rslora"] is (method == "rslora") and config["use_dora"] is (method == "dora")
    if more["merged"]:
        import torch

        one = logits(served(tmp_path / "merged"))
        two = logits(served(tmp_path / "adapter") if method == "full" else served(base, tmp_path / "adapter"))
        torch.testing.assert_close(one, two, rtol=0.05, atol=0.05)  # bfloat16's three digits
        assert (one - logits(served(base))).abs().max() > 0.5
        assert (tmp_path / "merged" / "tokenizer.json").exists()
        assert str(tmp_path.parent) not in (tmp_path / "merged" / "config.json").read_text()


def test_an_adalora_becomes_a_lora_that_computes_the_same(base: Path, tmp_path: Path) -> None:
    import torch

    model, _ = models_peft.build(base, ADALORA, None, 20)
    model.float()
    torch.manual_seed(3)
    for name, p in model.named_parameters():
        if "lora_E" in name:
            p.data = torch.randn_like(p)
            p.data[torch.rand(p.shape) < 0.4] = 0  # what the budget took
        elif "lora_" in name and p.requires_grad:
            p.data = torch.randn_like(p) * 0.3
    first = next(p for n, p in model.named_parameters() if "lora_E" in n)
    first.data.zero_()  # a layer of which nothing is left
    models_peft.save(model, base, tmp_path / "adapter")
    config = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    most = max(adalora_peft.Ranks(model).left().values())
    assert config["r"] == config["lora_alpha"] == most <= 6
    found = logits(served(base, tmp_path / "adapter", rounded=models_peft.best_dtype()))
    torch.testing.assert_close(found, logits(model), rtol=1e-4, atol=1e-4)
    assert (logits(model) - logits(served(base))).abs().max() > 0.1


def test_the_phases_of_the_rank_schedule_come_from_the_steps() -> None:
    spec = AdaLoraSpec(initial_rank=12, start_share=0.1, final_share=0.3, every=10)
    assert adalora_peft.phases(spec, 200) == (200, 20, 60, 10)
    assert adalora_peft.phases(spec, 10) == (10, 1, 3, 6)
    for steps in range(1, 40):
        total, start, final, every = adalora_peft.phases(spec, steps)
        assert total == steps and every >= 1 and (steps < 3 or start + final < steps)


def test_ranks_end_within_the_budget_and_are_told(base: Path, data: Path, tmp_path: Path) -> None:
    result = run(data, ADALORA, base, tmp_path)
    (note,) = [n for n in result.notes if n.startswith("ranks left")]
    layers = 2 * 7
    left = int(note.split(",")[1].split()[0])
    assert 0 < left <= 4 * layers < 6 * layers
    assert "layers.0.self_attn.q_proj" in note


def test_an_adalora_that_was_cut_off_ends_with_the_same_weights(base: Path, data: Path, tmp_path: Path) -> None:
    class Stop(Exception):
        pass

    for cut in (13, 27):  # while ranks fall, and after they were settled

        def stop(p: Any, cut: int = cut) -> None:
            if p.step == cut:
                raise Stop

        out = tmp_path / str(cut)
        with pytest.raises(Stop):
            train(data, ADALORA, base, out, start_adapter=None, on_progress=stop)
        assert run(data, ADALORA, base, out).resumed_at == cut // 10 * 10
    run(data, ADALORA, base, tmp_path / "whole")
    assert_same(tmp_path / "13", tmp_path / "whole")
    assert_same(tmp_path / "27", tmp_path / "whole")


def test_two_runs_give_the_same_adapter_bit_by_bit_or_say_why(base: Path, data: Path, tmp_path: Path) -> None:
    one, two = run(data, SPEC, base, tmp_path / "1"), run(data, SPEC, base, tmp_path / "2")
    assert adapter_sha256(tmp_path / "1" / "adapter") == adapter_sha256(tmp_path / "2" / "adapter")
    assert differences(one, two) == [] and one.versions["torch"] and one.versions["processes"] == "1"
    import msgspec

    other = msgspec.structs.replace(two, versions={**two.versions, "threads": "64"})
    assert differences(one, other) == [f"threads: {one.versions['threads']} and 64"]


def test_weights_weigh_by_hand(base: Path) -> None:
    import torch

    model = served(base)
    ids = collate(BATCH, 2)["input_ids"]
    logs = torch.log_softmax(model(input_ids=ids).logits.float(), -1)
    one = -(logs[0, 2, 8] + logs[0, 3, 2])
    two = -(logs[1, 0, 9] + logs[1, 1, 2])
    weighted = [Encoded(BATCH[0].input_ids, BATCH[0].labels, 0.5), Encoded(BATCH[1].input_ids, BATCH[1].labels, 2.0)]
    torch.testing.assert_close(completion_loss(model, collate(weighted, 2)), (0.5 * one + 2.0 * two) / 4)
    torch.testing.assert_close(completion_loss(model, collate(BATCH, 2)), (one + two) / 4)
    found = validation_losses(model, [*weighted, BATCH[1]], pad=2, dtype=torch.float32, batch_size=2)
    assert found == pytest.approx([float(one) / 2, float(two) / 2, float(two) / 2], rel=1e-4)


def test_poor_examples_teach_less(base: Path, tmp_path: Path) -> None:
    """The same question with two answers: the better one by its quality wins."""
    from pawl.curation.dataset import Example

    def example(n: int, completion: str, quality: float) -> Example:
        messages = [{"role": "user", "content": "w1"}]
        return Example(
            id=f"e{n}", messages=messages, completion=completion, quality=quality, source=f"s{n}", interactions=()
        )

    rows = [example(n, *(("yes", 1.0) if n % 2 else ("no", 0.1))) for n in range(24)]
    held = msgspec_split([example(90, "yes", 1.0), example(91, "no", 1.0)])
    path = datasets.save(DatasetVersion(agent="t", examples=(*rows, *held), sources=()), tmp_path)
    ends: dict[bool, list[float]] = {}
    for weighted in (True, False):
        spec = SPEC.model_copy(update={"weighted": weighted, "epochs": 4})
        looks: list[tuple[float, list[float]]] = []
        run(path, spec, base, tmp_path / str(weighted), on_validation=lambda s, x, to=looks: to.append((s, x)))
        assert [s for s, _ in looks] == [0.0, 1.0]
        first, second = looks[-1][1]
        order = {e.completion: loss for e, loss in zip(shown(path), (first, second), strict=True)}
        ends[weighted] = [order["yes"], order["no"]]
    assert ends[True][1] - ends[True][0] > 3 * max(0.1, abs(ends[False][1] - ends[False][0]))


def shown(path: Path) -> list[Any]:
    """The validation examples in the order in which training looks at them."""
    import random

    version = datasets.load(path)
    rows = [e for e in version.examples if e.split == "validation"]
    random.Random(version.fingerprint).shuffle(rows)
    return rows


def msgspec_split(rows: list[Any]) -> list[Any]:
    import msgspec

    return [msgspec.structs.replace(e, split="validation") for e in rows]


def test_validation_is_looked_at_on_the_way(base: Path, data: Path, tmp_path: Path) -> None:
    version = datasets.load(data)
    held = msgspec_split(list(version.examples[:6]))
    path = datasets.save(DatasetVersion(agent="t", examples=(*version.examples, *held), sources=()), tmp_path)
    looks: list[tuple[float, float]] = []
    result = run(
        path, SPEC, base, tmp_path / "o", validate_every=0.25,
        on_validation=lambda share, losses: looks.append((share, sum(losses) / len(losses))),
    )  # fmt: skip
    assert [round(s, 2) for s, _ in looks] == [0.0, 0.27, 0.53, 0.8, 1.0]
    assert looks[-1][1] == result.validation_after < result.validation_before == looks[0][1]


def test_a_full_disk_says_so_and_keeps_the_last_checkpoint(base: Path, data: Path, tmp_path: Path) -> None:
    """A limit on the file's size stands for the disk: the optimiser's state no longer fits."""
    code = """
import resource, signal, sys
from pathlib import Path
from pawl.errors import ResourceError
from pawl.fleet.training import TrainingSpec
from pawl.training.peft_trainer import train
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
data, base, out, spec = sys.argv[1:]
def shrink(p):
    if p.step == 15:
        resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, resource.RLIM_INFINITY))
try:
    train(Path(data), TrainingSpec.model_validate_json(spec), Path(base), Path(out), start_adapter=None,
          on_progress=shrink)
except ResourceError as e:
    print(e)
"""
    arguments = [str(data), str(base), str(tmp_path), SPEC.model_dump_json()]
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True)
    assert "the disk filled up" in done.stdout and "continues" in done.stdout
    assert not (tmp_path / "adapter").exists()
    result = run(data, SPEC, base, tmp_path)
    assert result.resumed_at == 10 and result.steps == 30


def test_what_does_not_go_together_is_said_at_once() -> None:
    with pytest.raises(ValidationError, match="merged: true") as found:
        TrainingSpec.model_validate({"method": "full", "ewc": {}, "start": "base"})
    assert "ewc and merge work on adapters" in str(found.value) and "start: champion" in str(found.value)
    with pytest.raises(ValidationError, match="above rank 16"):
        TrainingSpec.model_validate({"method": "adalora", "start": "base", "adalora": {"initial_rank": 16}})
    with pytest.raises(ValidationError, match="leave steps"):
        AdaLoraSpec(start_share=0.6, final_share=0.5)


def test_qlora_without_a_gpu_says_what_to_do(base: Path, data: Path, tmp_path: Path) -> None:
    import torch

    if torch.cuda.is_available():
        result = run(data, SPEC.model_copy(update={"method": "qlora"}), base, tmp_path)
        assert result.loss_last < result.loss_first
        return
    with pytest.raises(ResourceError, match="method: lora"):
        run(data, SPEC.model_copy(update={"method": "qlora"}), base, tmp_path)


def test_a_champion_under_another_scaling_is_continued_as_what_it_computes(
    base: Path, data: Path, tmp_path: Path
) -> None:
    import torch

    first = run(data, SPEC, base, tmp_path / "1")
    other = SPEC.model_copy(update={"method": "rslora", "alpha": 16})
    model, _ = models_peft.build(base, other, Path(first.adapter_dir), 30)
    models_peft.save(model, base, tmp_path / "adapter")
    config = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    assert config["use_rslora"] and config["lora_alpha"] == 16
    one, two = logits(served(base, tmp_path / "adapter")), logits(served(base, Path(first.adapter_dir)))
    torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-4)


def test_a_champion_of_another_kind_is_not_continued(base: Path, data: Path, tmp_path: Path) -> None:
    first = run(data, SPEC.model_copy(update={"epochs": 0.2}), base, tmp_path / "1")
    dora = SPEC.model_copy(update={"method": "dora", "merged": True})
    with pytest.raises(ModelFileError, match=r"dora False, the spec says True"):
        models_peft.build(base, dora, Path(first.adapter_dir), 30)


def test_two_processes_train_one_adapter_together(base: Path, data: Path, tmp_path: Path) -> None:
    """Started by torchrun, as on several GPUs; each takes every other batch. AdaLoRA's ranks fall by the steps of one
    process, and what elastic weight consolidation holds is found once, for both."""
    script = tmp_path / "script.py"
    script.write_text("""
import sys
from pathlib import Path
from pawl.curation import dataset as datasets
from pawl.fleet.training import TrainingSpec
from pawl.training.peft_trainer import train
data, base, out, plain, adalora, held, loose = sys.argv[1:]
earlier = datasets.load(Path(data)).train[:8]

def fit(spec, name, start=None, tell=lambda _: None):
    return train(Path(data), TrainingSpec.model_validate_json(spec), Path(base), Path(out) / name,
                 start_adapter=start, on_progress=tell, earlier=earlier)

first = fit(plain, "plain")
again = fit(plain, "plain", tell=lambda _: sys.exit("a finished run is not repeated"))
assert again.steps == first.steps == 15 and first.versions["processes"] == "2", first
fit(adalora, "adalora")
fit(held, "held", start=Path(first.adapter_dir))
fit(loose, "loose", start=Path(first.adapter_dir))
""")
    held, loose = (
        TrainingSpec.model_validate({**SPEC.model_dump(), "ewc": {"strength": s, "examples": 8}}) for s in (1e3, 1e-9)
    )
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone"]
    arguments = [str(script), str(data), str(base), str(tmp_path)]
    arguments += [s.model_dump_json() for s in (SPEC, ADALORA, held, loose)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run([*torchrun, *arguments], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    results = {n: json.loads((tmp_path / n / "result.json").read_text()) for n in ("plain", "adalora", "held")}
    for name in ("plain", "adalora"):
        assert results[name]["loss_last"] < results[name]["loss_first"] * 0.7
        assert any("2 processes" in n for n in results[name]["notes"])
        assert (logits(served(base, tmp_path / name / "adapter")) - logits(served(base))).abs().max() > 0.5
        assert not (tmp_path / name / "stages").exists()
    (ranks,) = [n for n in results["adalora"]["notes"] if n.startswith("ranks left")]
    assert int(ranks.split(",")[1].split()[0]) <= 4 * 2 * 7, "ranks fell to the end of their schedule"
    assert not [n for n in results["held"]["notes"] if "ewc" in n]
    far, farther = (distance(tmp_path / n / "adapter", tmp_path / "plain" / "adapter") for n in ("held", "loose"))
    assert 0 < 2 * far < farther, "held where it was"


def distance(one: Path, two: Path) -> float:
    """Sum of squares between two adapters' weights."""
    from safetensors.torch import load_file

    a, b = (load_file(f / "adapter_model.safetensors") for f in (one, two))
    return float(sum((a[k] - b[k]).pow(2).sum() for k in a))


def test_all_stages_one_after_the_other_and_an_average_at_the_end(base: Path, data: Path, tmp_path: Path) -> None:
    """Text, examples, preferences, then merged with the champion that it held on to; cut off in the last stage."""
    import torch

    champion = run(data, SPEC, base, tmp_path / "champion")
    (tmp_path / "texts").mkdir()
    for n in range(24):
        (tmp_path / "texts" / f"{n}.md").write_text(" ".join(f"w{(n + k) % 54}" for k in range(60)))
    version = datasets.load(data)
    pairs = tuple(
        Pair(
            id=f"p{n}", messages=e.messages, chosen=e.completion, rejected="w1 w2", gap=1.0, origin="correction",
            source=e.source, split="train", interactions=(),
        )
        for n, e in enumerate(version.examples)
    )  # fmt: skip
    both = datasets.save(DatasetVersion(agent="t", examples=version.examples, sources=(), pairs=pairs), tmp_path)
    spec = TrainingSpec.model_validate(
        {
            **SPEC.model_dump(),
            "learning_rate": 1e-3,
            "pretrain": {"files": ["*.md"], "max_tokens": 64},
            "preference": {"min_pairs": 10, "learning_rate": 1e-3},
            "ewc": {"strength": 0.1, "examples": 8},
            "merge": {"weight": 0.5},
        }
    )
    more = {
        "start_adapter": Path(champion.adapter_dir),
        "earlier": version.examples[:8],
        "texts": tmp_path / "texts",
        "merge_with": [Path(champion.adapter_dir)],
    }
    seen: list[str] = []

    class Stop(Exception):
        pass

    def stop(p: Progress) -> None:
        seen.append(p.stage)
        if p.stage == "preferences":
            raise Stop

    with pytest.raises(Stop):
        train(both, spec, base, tmp_path / "run", on_progress=stop, **more)
    assert list(dict.fromkeys(seen)) == ["pretraining", "examples", "preferences"]
    seen.clear()
    result = train(both, spec, base, tmp_path / "run", on_progress=lambda p: seen.append(p.stage), **more)
    assert set(seen) == {"preferences"}, "what was finished is not done again"
    assert [s.name for s in result.stages] == ["pretraining", "examples", "preferences"]
    assert "1 held out" in result.stages[0].note and "perplexity" in result.stages[0].note
    assert any(n.startswith("merged (linear): 0.50 adapter, 0.50 adapter") for n in result.notes)
    alone = spec.model_copy(update={"merge": None})
    train(both, alone, base, tmp_path / "alone", on_progress=lambda _: None, **more)
    trained, before, found = (deltas(tmp_path / name / "adapter") for name in ("alone", "champion", "run"))
    for layer, change in found.items():
        u, s, vh = torch.linalg.svd((trained[layer] + before[layer]) / 2)
        nearest = (u[:, : spec.rank] * s[: spec.rank]) @ vh[: spec.rank]
        torch.testing.assert_close(change, nearest, rtol=1e-3, atol=1e-4)
        assert (change - before[layer]).abs().max() > 1e-3, "the champion alone is another function"


def test_what_earlier_answers_depend_on_stays_where_it_was(base: Path, data: Path, tmp_path: Path) -> None:
    champion = run(data, SPEC, base, tmp_path / "champion")
    start = Path(champion.adapter_dir)
    version = datasets.load(data)
    moved = []
    for n, strength in enumerate((None, 0.1, 1000.0)):
        ewc = {"strength": strength, "examples": 20} if strength else None
        spec = TrainingSpec.model_validate({**SPEC.model_dump(), "seed": 3, "epochs": 0.5, "ewc": ewc})
        train(
            data, spec, base, tmp_path / str(n),
            start_adapter=start, on_progress=lambda _: None, earlier=version.examples[:20],
        )  # fmt: skip
        moved.append(distance(start, tmp_path / str(n) / "adapter"))
    assert moved[0] > moved[1] > moved[2] > 0
