"""The search on a tiny model with the real trainer, on a real MLflow server: killed by kill -9, resumed by the same
command, ending in a proposal; and a training that is followed while it runs."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import msgspec
import pytest
from mlflow import MlflowClient
from ruamel.yaml import YAML

from pawl.curation import dataset as datasets
from pawl.errors import ConfigError, NotEnoughData
from pawl.fleet.training import TrainingSpec
from pawl.improvement import steps
from pawl.improvement.searching import newest_dataset, search
from pawl.improvement.workplace import Workplace
from pawl.registry.run_log import kept_id
from pawl.settings import Settings
from tests.unit.test_peft_trainer import make_base, make_dataset

FLEET = """
base_model: {{source: {base}, licence: Apache-2.0}}
upstreams:
  local: {{preset: vllm}}
agents:
  - name: tiny   # the smallest
    task: generic
    training: {{rank: 4, alpha: 8, learning_rate: 1.0e-4, batch_size: 4, epochs: 3, max_tokens: 64}}
    search: {{ranks: [2, 4], learning_rates: [1.0e-2, 3.0e-2], methods: [lora], epochs: [3, 3]}}
"""


@dataclass(frozen=True)
class Home:
    """A machine with a base model, a fleet and a dataset."""

    folder: Path
    dataset: Path
    environment: dict[str, str]

    @property
    def place(self) -> Workplace:
        port = int(self.environment["PAWL_MLFLOW_PORT"])
        return Workplace(
            Settings(home=self.folder / "home", fleet=self.folder / "fleet.yaml", mlflow_port=port), "tiny"
        )


@pytest.fixture
def home(mlflow_url: str, tmp_path: Path) -> Home:
    base = make_base(tmp_path / "models" / "tiny")
    (tmp_path / "fleet.yaml").write_text(FLEET.format(base=base))
    made = datasets.load(make_dataset(tmp_path, count=80))
    split = tuple(
        msgspec.structs.replace(e, split="validation" if i % 4 == 3 else "train") for i, e in enumerate(made.examples)
    )
    dataset = datasets.save(msgspec.structs.replace(made, examples=split), tmp_path / "home" / "datasets")
    environment = {
        **os.environ,
        "PAWL_HOME": str(tmp_path / "home"),
        "PAWL_FLEET": str(tmp_path / "fleet.yaml"),
        "PAWL_MLFLOW_PORT": mlflow_url.rsplit(":", 1)[1],
        "OMP_NUM_THREADS": "1",
    }
    return Home(tmp_path, dataset, environment)


def checkpointed(trial: Path) -> bool:
    """Whether the trial runs and has a whole checkpoint."""
    return any(trial.glob("training/stages/examples/checkpoints/checkpoint-*/trainer_state.json"))


@pytest.mark.servers
@pytest.mark.parametrize("ray", ["", pytest.param("local", marks=pytest.mark.slow)], ids=["here", "ray"])
def test_a_killed_search_goes_on_and_proposes(home: Home, mlflow_url: str, ray: str) -> None:
    home.environment["PAWL_RAY"] = ray
    command = [sys.executable, "-m", "pawl.cli", "search", "tiny", "--trials", "4"]
    trials = home.folder / "home" / "search" / "trials"
    killed = subprocess.Popen(command, env=home.environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    give_up = time.monotonic() + 120
    while not [*trials.glob("*/*/losses.json")] or not any(checkpointed(p) for p in trials.glob("*/*")):
        assert killed.poll() is None and time.monotonic() < give_up, killed.communicate()[0].decode()
        time.sleep(0.01)
    os.kill(killed.pid, signal.SIGKILL)
    killed.wait()
    assert not (home.folder / "home" / "search" / "tiny-proposal.yaml").exists()

    before = (home.folder / "fleet.yaml").read_text()
    done = subprocess.run(command, env=home.environment, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    assert (home.folder / "fleet.yaml").read_text() == before
    assert (
        "better beyond noise" in done.stdout and "--- fleet.yaml" in done.stdout and "complete, present" in done.stdout
    )
    text = (home.folder / "home" / "search" / "tiny-proposal.yaml").read_text()
    tree = YAML(typ="safe").load(text)
    taken = TrainingSpec.model_validate(tree["training"])
    assert 1e-2 <= taken.learning_rate <= 3e-2 and taken.batch_size == 4 and taken.alpha == 2 * taken.rank
    nats = tree["evidence"]["nats_a_token"]
    assert nats["proposed"]["mean"] < nats["present"]["mean"] and nats["difference"]["upper"] < 0
    assert tree["evidence"]["validation"]["examples"] == 20 and len(tree["evidence"]["trials"]) == 4
    assert (home.folder / "home" / "search" / "tiny-search.png").read_bytes().startswith(b"\x89PNG")
    assert str(home.folder) not in text and not [*trials.glob("*/*/training")]

    client = MlflowClient(mlflow_url)
    experiment = client.get_experiment_by_name("tiny").experiment_id
    (kept,) = trials.glob("*/run.id")
    parent = client.get_run(kept_id(kept))
    children = client.search_runs([experiment], f"tags.`mlflow.parentRunId` = '{parent.info.run_id}'")
    runs = [parent, *children]
    assert parent.data.tags["kind"] == "search" and {r.data.tags["kind"] for r in children} == {"trial"}
    assert parent.info.status == "FINISHED" and parent.data.tags["verdict"] == "better"
    # The trial that was cut off goes on with its run, so there are as many as trials.
    assert len(children) == 4 and {r.info.status for r in children} <= {"FINISHED", "KILLED"}
    assert any("validation_loss" in r.data.metrics and "validation/loss" in r.data.metrics for r in children)
    names = {f.path for f in client.list_artifacts(parent.info.run_id)}
    assert names == {"tiny-proposal.yaml", "tiny-proposal.md", "tiny-search.png"}
    assert not [v for r in runs for v in r.data.params.values() if str(home.folder) in v]


@pytest.mark.servers
def test_what_cannot_be_searched_is_told(home: Home) -> None:
    fleet = home.folder / "fleet.yaml"
    fleet.write_text(fleet.read_text().replace("methods: [lora]", "methods: [full]"))
    with pytest.raises(ConfigError, match="merged: true"):
        search(home.place, home.dataset, lambda *_: None)
    fleet.write_text(fleet.read_text().replace("methods: [full]", "methods: [lora]"))
    bare = make_dataset(home.folder / "home" / "datasets", count=12)
    with pytest.raises(NotEnoughData, match="no validation examples"):
        search(home.place, bare, lambda *_: None)
    assert newest_dataset(home.folder / "home" / "datasets", "tiny") == bare
    with pytest.raises(NotEnoughData, match="pawl dataset prepare other"):
        newest_dataset(home.folder / "home" / "datasets", "other")


@pytest.mark.servers
def test_a_killed_training_goes_on_with_its_run(home: Home, mlflow_url: str) -> None:
    code = """
import os, signal, sys
from pathlib import Path
from pawl.improvement import steps
from pawl.improvement.workplace import Workplace
from pawl.settings import Settings

place = Workplace(Settings(), "tiny")

def kill(name, done, total, note):
    if done == 33:
        import time
        time.sleep(4)
        os.kill(os.getpid(), signal.SIGKILL)

steps.train(place, Path(sys.argv[1]), place.agent.training, kill)
"""
    done = subprocess.run([sys.executable, "-c", code, str(home.dataset)], env=home.environment, timeout=120)
    assert done.returncode == -signal.SIGKILL
    client = MlflowClient(mlflow_url)
    (folder,) = (home.folder / "home" / "candidates").iterdir()
    first = kept_id(folder / "run.id")
    assert client.get_run(first).info.status == "RUNNING"
    seen = {m.step for m in client.get_metric_history(first, "examples/loss")}
    assert seen >= set(range(1, 33))  # while it ran

    said: list[str] = []
    place = home.place
    made = steps.train(place, home.dataset, place.agent.training, lambda name, done, total, note: said.append(note))
    run = client.get_run(first)
    assert kept_id(made.run_file) == first and run.info.status == "FINISHED"
    steps_seen = {m.step for m in client.get_metric_history(first, "examples/loss")}
    assert steps_seen == set(range(1, 46))
    curve = made.read("losses", list[tuple[int, float]])
    assert [n for n, _ in curve] == list(range(1, 46)), "the evidence shows the steps before the kill too"
    tags = run.data.tags
    assert (tags["candidate"], tags["dataset"], tags["method"]) == (made.id, home.dataset.stem, "lora")
    assert tags["code_version"].startswith("0.") and run.data.params["learning_rate"] == "0.0001"
    assert run.data.metrics["examples/memory_mb"] > 10 and run.data.metrics["examples/tokens_per_s"] > 0
    assert "learning rate" in said[-1] and "MB" in said[-1]
