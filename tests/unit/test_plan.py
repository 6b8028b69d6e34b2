"""What a training will need: hand-computed, and against what peft, autograd and the scheduler really do."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

from pawl.curation import dataset as datasets
from pawl.curation.dataset import DatasetVersion
from pawl.errors import ModelFileError, NotEnoughData
from pawl.fleet.training import EwcSpec, PretrainSpec, TrainingSpec
from pawl.improvement.planning import dataset_for
from pawl.improvement.planning import plan as plan_of
from pawl.improvement.steps import Lineage
from pawl.improvement.workplace import Candidate, Workplace
from pawl.settings import Settings
from pawl.training import plan
from pawl.training.adapter_tensors import Linear
from pawl.training.base_model_transformers import base_sha256
from pawl.training.batches import schedule
from pawl.training.machine import Gpu, Machine, cgroup_free, machine
from pawl.training.plan import Load, Shape
from pawl.training.plan_report import (
    duration,
    problems_of,
    rough_speed,
    size,
    steps_of,
    tokens_of,
)
from pawl.training.plan_transformers import shape_in
from pawl.training.result import TrainResult
from tests.unit.test_peft_trainer import make_base, make_dataset

GB = 10**9
# One block of two layers, by hand: 10 x 20 and 20 x 10, an embedding of 100 x 10.
SMALL = Shape(
    parameters=1400, layers=1, hidden=10, intermediate=20, heads=2, kv_heads=1, head_dim=5, vocab=100,
    linear={"l.0.up": Linear(20, 10), "l.0.down": Linear(10, 20)},
)  # fmt: skip
MACHINE = Machine(memory_free=8 * GB, memory_total=16 * GB, memory_limited=False, disk_free=GB, cores=2, half=True)


def spec(**more: Any) -> TrainingSpec:
    """Unchecked where a method demands what has nothing to do with memory."""
    return TrainingSpec().model_copy(update=more)


# -- parameters


@pytest.mark.parametrize(
    ("more", "wanted"),
    [
        ({"rank": 4}, 4 * (30 + 30)),
        ({"rank": 4, "method": "rslora"}, 4 * 60),
        ({"rank": 4, "method": "dora"}, 4 * 60 + 20 + 10),
        ({"method": "adalora"}, 24 * 60 + 2 * 25),  # at the rank it begins with
        ({"rank": 4, "target_modules": ("up",)}, 4 * 30),
        ({"rank": 4, "target_modules": r".*\.down"}, 4 * 30),
        ({"method": "full"}, 1400),
    ],
)
def test_trained_parameters_by_hand(more: dict[str, Any], wanted: int) -> None:
    assert plan.trained_parameters(SMALL, spec(**more)) == wanted


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_base(tmp_path_factory.mktemp("models") / "tiny")


@pytest.mark.parametrize("method", ["lora", "rslora", "dora", "adalora", "full"])
def test_trained_parameters_are_what_the_trainer_trains(base: Path, method: str) -> None:
    from pawl.training.models_peft import build

    wanted = spec(method=method, rank=4, alpha=8)
    model, _ = build(base, wanted, None, 100)
    assert plan.trained_parameters(shape_in(base), wanted) == sum(
        p.numel() for p in model.parameters() if p.requires_grad
    )


def test_without_weights_the_architecture_tells_the_same(base: Path, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text((base / "config.json").read_text())
    assert shape_in(tmp_path).parameters == shape_in(base).parameters
    assert plan.trained_parameters(shape_in(tmp_path), spec()) == plan.trained_parameters(shape_in(base), spec())
    (tmp_path / "config.json").write_text('{"model_type": "nobody-knows"}')
    with pytest.raises(ModelFileError):
        shape_in(tmp_path)


# -- memory


def test_memory_by_hand() -> None:
    load = Load(rows=2, longest=3, completion=4)
    found = plan.memory(SMALL, spec(rank=4), load, cuda=False, half=True)
    assert (found.weights, found.trained, found.gradients, found.optimizer) == (2800, 960, 960, 1920)
    assert found.logits == 4 * 100 * 10
    # 18 h + 8 middle + 8 queries + 6 bytes a score + 7 layers x rank 4 x 2 bytes; casts of 240; then a block more.
    block = (18 * 10 + 8 * 20 + 8 * 10 + 6 * 2 * 3 + 7 * 4 * 2) * 6 + 2 * 240
    assert plan.layer_activations(SMALL, spec(rank=4), load, 2, fused=False) == block
    assert found.activations == round(2 * block * plan.SLACK_CPU)
    assert found.total == plan.PROCESS + 2800 + 960 + 960 + 1920 + 4000 + found.activations


def test_memory_of_other_methods_by_hand() -> None:
    load = Load(rows=1, longest=1, completion=1)

    def of(**more: Any) -> plan.Memory:
        return plan.memory(SMALL, spec(rank=4, **more), load, cuda=True, half=True)

    packed = 400  # both layers; the other 1,000 lie in float32
    assert of(method="qlora").weights == round(packed * 4.127 / 8) + 4000
    full = of(method="full")
    assert (full.weights, full.trained, full.gradients, full.optimizer) == (5600, 0, 5600, 11200)
    sharded = plan.memory(SMALL, spec(rank=4), load, cuda=True, half=True, shards=2)
    assert sharded.weights == 1400 + 2800 and sharded.optimizer == 960  # its half, and the block at work
    quantised = msgspec.structs.replace(SMALL, stored=777)
    assert plan.memory(quantised, spec(), load, cuda=True, half=True).weights == 777
    assert plan.memory(SMALL, spec(), load, cuda=False, half=False).weights == 5600


def test_the_stage_of_text_and_what_ewc_holds_need_memory_too(home: Path) -> None:
    some = spec(rank=4, pretrain=PretrainSpec(files=("*",), max_tokens=100, batch_size=3))
    (text,) = plan.pretrain_loads(some, None)
    assert text == Load(rows=3, longest=100, completion=3 * 99), "every token is learnt"
    assert plan.pretrain_loads(some, 250)[0].rows == 2 and plan.pretrain_loads(spec(), None) == []
    load = Load(rows=1, longest=1, completion=1)
    held = plan.memory(SMALL, spec(rank=4, ewc=EwcSpec()), load, cuda=False, half=True)
    assert held.held == 2 * held.trained == 1920
    assert held.total - plan.memory(SMALL, spec(rank=4), load, cuda=False, half=True).total == 1920

    place = place_of(home)
    without = plan_of(place, dataset_for(place, ""))
    fleet = (home / "fleet.yaml").read_text()
    more = "max_tokens: 32, pretrain: {files: ['*.md'], max_tokens: 400, batch_size: 2},"
    (home / "fleet.yaml").write_text(fleet.replace("max_tokens: 32,", more))
    place = place_of(home)
    found = plan_of(place, dataset_for(place, ""))
    assert found.load.longest == 400 and found.memory.total > without.memory.total
    assert any("pre-training" in n for n in found.notes)


def kept_by_autograd(layers: int, method: str, half: bool, fused: bool, dropout: float) -> tuple[int, Shape]:
    """Bytes that a forward pass keeps for the backward one, parameters apart."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import LlamaConfig, LlamaForCausalLM

    from pawl.training.losses_torch import completion_loss

    config = LlamaConfig(
        vocab_size=64, hidden_size=96, intermediate_size=160, num_hidden_layers=layers, num_attention_heads=4,
        num_key_value_heads=2, head_dim=16, attn_implementation="sdpa" if fused else "eager",
    )  # fmt: skip
    model: Any = LlamaForCausalLM(config).to(torch.bfloat16 if half and method != "full" else torch.float32)
    if method != "full":
        peft = LoraConfig(r=8, target_modules="all-linear", task_type="CAUSAL_LM", use_dora=method == "dora",
                          lora_dropout=dropout)  # fmt: skip
        model = get_peft_model(model, peft)
    model.train()
    own = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept: dict[int, Any] = {}

    def pack(t: Any) -> Any:
        if t.untyped_storage().data_ptr() not in own:
            kept[t.untyped_storage().data_ptr()] = t
        return t

    ids = torch.randint(0, 64, (2, 40))
    hooks = torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t)
    with hooks, torch.autocast("cpu", torch.bfloat16, enabled=half):
        completion_loss(model, {"input_ids": ids, "labels": ids.clone()})
    names = {n.removeprefix("base_model.model."): m for n, m in model.named_modules()}
    linear = {
        n: Linear(m.out_features, m.in_features)
        for n, m in names.items()
        if hasattr(m, "out_features") and "lora_" not in n and not n.endswith(("lm_head", "base_layer"))
    }
    shape = plan.shape_of(config.to_dict(), linear, 1)
    return sum(t.untyped_storage().nbytes() for t in kept.values()), shape


@pytest.mark.parametrize(
    ("method", "half", "fused", "dropout", "within"),
    [
        ("lora", True, False, 0.0, 0.02),
        ("lora", False, False, 0.0, 0.02),
        ("lora", True, True, 0.0, 0.02),
        ("lora", False, True, 0.0, 0.02),
        ("lora", True, False, 0.1, 0.02),
        ("full", True, False, 0.0, 0.02),
        ("full", False, False, 0.0, 0.02),
        ("dora", True, False, 0.0, 0.15),
    ],
)
def test_activations_are_what_autograd_keeps(
    method: str, half: bool, fused: bool, dropout: float, within: float
) -> None:
    two, _ = kept_by_autograd(2, method, half, fused, dropout)
    four, shape = kept_by_autograd(4, method, half, fused, dropout)
    counted = plan.layer_activations(
        shape,
        spec(method=method, rank=8, dropout=dropout),
        Load(rows=2, longest=40, completion=0),
        2 if half else 4,
        fused=fused,
    )
    assert counted == pytest.approx((four - two) / 2, rel=within)


def test_the_largest_load() -> None:
    lengths = [(100, 10), (50, 40), (30, 30), (20, 5)]
    assert plan.largest_load(lengths, 2, None) == Load(rows=2, longest=100, completion=70)
    assert plan.largest_load(lengths, 8, 250) == Load(rows=2, longest=100, completion=70)
    assert plan.largest_load(lengths, 8, 50) == Load(rows=1, longest=100, completion=40), "at least one row"


# -- disk, tokens, steps


def test_disk_by_hand() -> None:
    found = plan.disk(SMALL, spec(rank=4), fetched=True)
    assert (found.base, found.checkpoints, found.result, found.merged) == (0, 12 * 240 * 3, 960, 0)
    found = plan.disk(SMALL, spec(rank=4, merged=True), fetched=False)
    assert (found.base, found.merged) == (2800, 2800)
    assert plan.disk(SMALL, spec(method="full", merged=True), fetched=True).result == 5600


def test_tokens_of_a_sample_carry_their_error() -> None:
    found = tokens_of([10, 20, 30, 40], [10, 20, 30], 400, long=1, rule="drop")
    assert (found.per_epoch, found.used, found.long, found.longest) == (6000, 300, 100, 40)
    variance = (15**2 + 5**2 + 5**2 + 15**2) / 3
    assert found.error == pytest.approx(1.96 * (variance / 4 * 0.99) ** 0.5 / 25)
    assert tokens_of([10, 20], [10, 20], 2, long=0, rule="drop").error == 0.0


@pytest.mark.parametrize(
    ("used", "batch", "epochs"), [(1, 8, 1.0), (17, 8, 1.0), (17, 8, 2.5), (40, 4, 3.0), (8, 8, 0.1)]
)
def test_steps_are_those_of_the_schedule(used: int, batch: int, epochs: float) -> None:
    wanted = len(schedule([5] * used, batch, epochs, 1))
    assert steps_of(used, spec(batch_size=batch, epochs=epochs)) == wanted


def test_a_rough_speed_goes_by_size_and_machine() -> None:
    smollm = msgspec.structs.replace(SMALL, parameters=135_000_000)
    cpu = rough_speed(smollm, spec(), MACHINE).tokens_per_s
    assert cpu == pytest.approx(500, rel=0.01)
    assert rough_speed(smollm, spec(), msgspec.structs.replace(MACHINE, half=False)).tokens_per_s < 0.6 * cpu
    gpu = msgspec.structs.replace(MACHINE, gpu=Gpu(name="NVIDIA H100 80GB", count=1, free=GB, total=GB))
    assert rough_speed(smollm, spec(), gpu).tokens_per_s > 100 * cpu


# -- the machine


def group(folder: Path, **files: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(text)


def test_the_narrowest_control_group_counts(tmp_path: Path) -> None:
    group(tmp_path / "a", memory__max="1000\n", memory__current="900\n", memory__stat="anon 5\ninactive_file 300\n")
    group(tmp_path / "a" / "b", memory__max="max\n", memory__current="10\n")
    assert cgroup_free(tmp_path, "0::/a/b\n") == 400
    group(tmp_path / "a" / "b", memory__max="100\n")
    assert cgroup_free(tmp_path, "0::/a/b\n") == 90
    assert cgroup_free(tmp_path, "0::/nowhere\n") is None
    assert cgroup_free(tmp_path, "") is None


def test_control_groups_of_version_one(tmp_path: Path) -> None:
    group(tmp_path / "memory", **{"memory.limit_in_bytes": "500", "memory.usage_in_bytes": "200"})
    # In a container the path is the host's, and only the root can be seen.
    assert cgroup_free(tmp_path, "4:memory:/docker/x\n1:cpu:/\n") == 300
    group(tmp_path / "memory", **{"memory.limit_in_bytes": str((1 << 63) - 4096)})
    assert cgroup_free(tmp_path, "4:memory:/docker/x\n") is None


def test_this_machine_has_something_left(tmp_path: Path) -> None:
    found = machine(tmp_path / "not" / "yet")
    assert 0 < found.memory_free <= found.memory_total and found.disk_free > 0 and found.cores >= 1


def test_what_does_not_fit_is_said() -> None:
    load = Load(rows=1, longest=10, completion=5)
    need, written = plan.memory(SMALL, spec(), load, cuda=False, half=True), plan.disk(SMALL, spec(), fetched=True)
    assert problems_of(spec(), need, written, MACHINE) == []
    small = msgspec.structs.replace(MACHINE, memory_free=GB // 2, disk_free=10)
    found = problems_of(spec(method="qlora"), need, written, small)
    assert [p.split()[0] for p in found] == ["method", "memory:", "disk:"]
    gpu = msgspec.structs.replace(small, gpu=Gpu(name="g", count=1, free=80 * GB, total=80 * GB), disk_free=GB)
    assert problems_of(spec(method="qlora"), need, written, gpu) == [], "the GPU's memory counts, not the host's"
    assert (size(2.5e9), size(3e6), duration(80), duration(600), duration(9000)) == (
        "2.5 GB", "3 MB", "80 s", "10 min", "2.5 h",
    )  # fmt: skip


# -- the command


@pytest.fixture
def home(base: Path, tmp_path: Path) -> Path:
    (tmp_path / "fleet.yaml").write_text(
        f"base_model: {{source: {base}}}\nupstreams: {{local: {{preset: vllm}}}}\nagents:\n"
        "  - {name: tiny, task: generic, data: {privacy: [open, local_only]},\n"
        "     training: {rank: 4, alpha: 8, batch_size: 4, epochs: 3, max_tokens: 32, start: base}}\n"
    )
    (tmp_path / "home" / "datasets").mkdir(parents=True)
    made = datasets.load(make_dataset(tmp_path))
    long = [{"role": "user", "content": "w1 " * 40}]
    rows = [msgspec.structs.replace(e, messages=long) if n % 4 == 3 else e for n, e in enumerate(made.examples)]
    datasets.save(msgspec.structs.replace(made, examples=tuple(rows)), tmp_path / "home" / "datasets")
    return tmp_path


def place_of(home: Path) -> Workplace:
    return Workplace(Settings(home=home / "home", fleet=home / "fleet.yaml"), "tiny")


def command(home: Path, *options: str, **more: str) -> subprocess.CompletedProcess[str]:
    env = {
        **os.environ,
        "PAWL_HOME": str(home / "home"),
        "PAWL_FLEET": str(home / "fleet.yaml"),
        "OMP_NUM_THREADS": "1",
        **more,
    }
    done = subprocess.run(
        [sys.executable, "-m", "pawl.cli", "plan-training", "tiny", *options], env=env, capture_output=True, text=True
    )
    assert "Traceback" not in done.stderr, done.stderr
    return done


def test_a_plan_of_real_tokens(home: Path) -> None:
    place = place_of(home)
    found = plan_of(place, dataset_for(place, ""))
    version = datasets.load(dataset_for(place, ""))
    from pawl.training.chat_format_transformers import ChatFormat

    form = ChatFormat(Path(place.fleet.base_model.source))
    lengths = [len(form.encode(e).input_ids) for e in version.train]
    fits = [n for n in lengths if n <= 32]
    assert (found.tokens.examples, found.tokens.long, found.tokens.used) == (40, 40 - len(fits), len(fits))
    assert len(fits) == 30 and found.tokens.per_epoch == sum(fits) and found.tokens.error == 0
    assert found.steps == len(schedule(fits, 4, 3.0, 17))
    assert found.speed.how == "rough" and found.licence == "Apache-2.0" and found.good
    assert found.seconds == pytest.approx(3 * sum(fits) / found.speed.tokens_per_s)


def test_the_last_run_on_this_base_tells_the_speed(home: Path) -> None:
    place = place_of(home)
    digest = base_sha256(Path(place.fleet.base_model.source))
    for n, (base, method) in enumerate([("other", "lora"), (digest, "dora"), (digest, "lora")]):
        candidate = Candidate(home / "home" / "candidates" / f"tiny-{n}")
        result = TrainResult(
            adapter_dir="", steps=1, examples=1, dropped=0, tokens=1, completion_tokens=1, seconds=1.0, method=method,
            tokens_per_s=100.0 + n, loss_first=1.0, loss_last=1.0, parameters=1, dtype="", peak_mb=2000.0,
        )  # fmt: skip
        candidate.write("training", result)
        lineage = {name: "" for name in Lineage.__struct_fields__} | {"base_sha256": base}
        candidate.write("lineage", Lineage(**lineage))
    found = plan_of(place, dataset_for(place, ""))
    assert (found.speed.how, found.speed.tokens_per_s, found.speed.note) == ("earlier run", 102.0, "tiny-2")
    assert any("peaked at 2.0 GB" in n for n in found.notes)


def test_the_command_times_real_steps_and_speaks_json(home: Path, tmp_path: Path) -> None:
    scratch = tmp_path / "scratch"  # where a process puts what it needs for a while
    scratch.mkdir()
    done = command(home, "--measure", "--json", TMPDIR=str(scratch))
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["speed"]["how"] == "measured" and told["speed"]["tokens_per_s"] > 0 and told["speed"]["peak_mb"] > 100
    assert told["good"] and told["memory_total"] == sum(told["memory"].values())
    assert not list(scratch.iterdir()), "the timed steps leave nothing"


def test_the_command_fails_where_it_is_forbidden(home: Path) -> None:
    version = datasets.load(dataset_for(place_of(home), ""))
    rows = (msgspec.structs.replace(version.examples[0], privacy="strict"), *version.examples[1:])
    datasets.save(msgspec.structs.replace(version, examples=rows), home / "home" / "datasets")
    done = command(home, "--dataset", datasets.name_of(msgspec.structs.replace(version, examples=rows)))
    assert done.returncode == 1 and "e0 (i0)" in done.stdout and "It is forbidden." in done.stdout
    fine = command(home, "--dataset", datasets.name_of(version))
    assert fine.returncode == 0 and "It fits" in fine.stdout


def test_the_command_fails_where_it_does_not_fit(home: Path) -> None:
    text = (home / "fleet.yaml").read_text().replace("rank: 4, alpha: 8", "rank: 4, alpha: 8, method: qlora")
    (home / "fleet.yaml").write_text(text)
    done = command(home)
    assert done.returncode == 1 and "It does not fit." in done.stdout and "needs a CUDA GPU" in done.stdout


def test_nothing_to_plan_is_said(home: Path, tmp_path: Path) -> None:
    place = place_of(home)
    version = DatasetVersion(agent="tiny", examples=(), sources=())
    empty = datasets.save(version, home / "home" / "datasets")
    with pytest.raises(NotEnoughData):
        plan_of(place, empty)
    with pytest.raises(NotEnoughData, match="pawl dataset prepare"):
        dataset_for(Workplace(Settings(home=tmp_path / "new", fleet=home / "fleet.yaml"), "tiny"), "")
