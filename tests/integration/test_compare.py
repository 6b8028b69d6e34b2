"""`pawl compare` between a local model (here a small server that always says the same) and the stand-in cloud."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from pawl.rollout.control_sqlite import SqliteControl
from tests.integration.openai_upstream import Upstream
from tests.unit.test_peft_trainer import make_base

FLEET = """\
base_model: {{source: {base}, licence: Apache-2.0}}
upstreams:
  local: {{preset: vllm}}
  cloud: {{kind: cloud, stand_in: true, model: stand-in, base_url: "${{PAWL_STANDIN_URL}}/v1",
          usd_per_million_prompt: 2.5, usd_per_million_completion: 10.0}}
  other: {{kind: local, model: small, base_url: "http://127.0.0.1:{port}/other/v1"}}
  paid: {{preset: openai, model: gpt-4o, api_key_env: TEST_NO_SUCH_KEY}}
agents:
  - name: negative
    task: functional-negative
    source: {{max_schema_chars: 150}}
    evaluation: {{items: 40}}
  - {{name: private, task: functional-negative, privacy: local_only, source: {{max_schema_chars: 150}}}}
"""


class Machine:
    """A home with a fleet, a local server and the stand-in."""

    def __init__(self, folder: Path, local: Upstream, standin: int) -> None:
        base = make_base(folder / "models" / "tiny")
        (folder / "fleet.yaml").write_text(FLEET.format(base=base, port=local.port))
        self.home, self.local = folder / "home", local
        self.env = os.environ | {
            "PAWL_HOME": str(self.home), "PAWL_FLEET": str(folder / "fleet.yaml"),
            "PAWL_VLLM_PORT": str(local.port), "PAWL_STANDIN_PORT": str(standin),
        }  # fmt: skip
        self.env.pop("TEST_NO_SUCH_KEY", None)

    def chats(self) -> int:
        """Items that the local server was asked."""
        return sum(path == "/v1/chat/completions" for path, _, _ in self.local.asked)

    def compare(self, *arguments: str, mlflow: bool = False) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "pawl.cli", "compare", *arguments, *(() if mlflow else ("--no-mlflow",))]
        return subprocess.run(command, env=self.env, capture_output=True, text=True, timeout=180)


@pytest.fixture
def machine(tmp_path: Path, free_port: int) -> Iterator[Machine]:
    local = Upstream()
    local.answers["base"] = "I would test the name."
    standin = subprocess.Popen([sys.executable, "-m", "pawl.qe.standin", "--port", str(free_port), "--latency-ms", "1"])
    end = time.monotonic() + 30
    while True:
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{free_port}/healthz", timeout=1)
            break
        except OSError:
            assert time.monotonic() < end and standin.poll() is None
            time.sleep(0.1)
    yield Machine(tmp_path, local, free_port)
    standin.terminate()
    standin.wait(10)
    local.server.shutdown()


def test_two_models_are_compared_on_the_same_items_with_what_serving_costs(machine: Machine) -> None:
    done = machine.compare("cloud", "base", "--agent", "negative", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    c = found["comparison"]
    assert c["verdict"] == "worse" and c["pairs"] == 40 and c["champion"]["name"] == "stand-in (a stand-in)"
    assert found["of_baseline"]["mean"] == 0.0
    local, cloud, hybrid = found["modes"]
    assert [m["name"].split(":")[0] for m in (local, cloud, hybrid)] == ["local only", "cloud only", "hybrid"]
    assert hybrid["cloud_share"] == 1.0 and hybrid["quality"] == cloud["quality"], "no local answer has the form"
    assert local["usd_per_thousand"] == 0 < cloud["usd_per_thousand"] == hybrid["usd_per_thousand"]
    page = Path(found["page"]).read_text()
    assert "Two models compared" in page and "a stand-in" in page
    log = SqliteControl(machine.home / "control.sqlite").audit_log()
    asked_for = [(e["event"], e["detail"]["host"], e["detail"]["items"]) for e in log]
    assert asked_for == [("cloud evaluation", "127.0.0.1", 40)]
    asked = machine.chats()
    again = machine.compare("cloud", "base", "--agent", "negative")
    assert machine.chats() == asked == 40, "answers are kept"
    assert "token accuracy: not measured: a cloud's API" in again.stdout and "0 of 24 references" in again.stdout
    assert "base is worse than stand-in (a stand-in) (40 items of" in again.stdout and "hybrid" in again.stdout


@pytest.mark.servers
def test_a_comparison_is_recorded_on_mlflow_or_it_is_said_why_not(
    machine: Machine, mlflow_url: str, tmp_path: Path
) -> None:
    from mlflow import MlflowClient

    machine.env["PAWL_MLFLOW_PORT"] = "1"
    alone = machine.compare("cloud", "base", "--agent", "negative", mlflow=True)
    assert alone.returncode == 0 and "run: " not in alone.stdout
    assert "not recorded: " in alone.stderr and "MLflow at http://127.0.0.1:1 does not answer" in alone.stderr
    (page,) = [line.removeprefix("page: ") for line in alone.stdout.splitlines() if line.startswith("page: ")]
    assert "Two models compared" in Path(page).read_text()

    asked = machine.chats()
    machine.env["PAWL_MLFLOW_PORT"] = mlflow_url.rsplit(":", 1)[1]
    links = []
    for _ in range(2):
        done = machine.compare("cloud", "base", "--agent", "negative", "--json", mlflow=True)
        assert done.returncode == 0, done.stderr
        links.append(json.loads(done.stdout)["run"])
    assert links[0] == links[1], "the same comparison is one run"
    assert machine.chats() == asked, "answers are kept"
    client, run_id = MlflowClient(mlflow_url), links[0].rsplit("/", 1)[1]
    run = client.get_run(run_id)
    assert (
        run.info.run_name == "compare cloud base" and client.get_experiment(run.info.experiment_id).name == "negative"
    )
    assert run.data.metrics["challenger_score"] == 0.0 < run.data.metrics["champion_score"]
    assert run.data.params["verdict"] == "worse" and run.data.params["report_digest"]
    names = {a.path for a in client.list_artifacts(run_id)}
    table = f"evaluation-{run.data.params['report_digest'][:12]}.json"
    assert names == {"report.html", "plot-quality.svg", "plot-paired.svg", "plot-slices.svg", table}
    rows = json.loads(Path(client.download_artifacts(run_id, table, str(tmp_path))).read_text())
    assert len(rows["data"]) == 40 and {"champion_answer", "challenger_answer", "change"} <= set(rows["columns"])
    changes = [r[rows["columns"].index("change")] for r in rows["data"]]
    assert changes == sorted(changes), "the worst regressions first"
    plot = Path(client.download_artifacts(run_id, "plot-paired.svg", str(tmp_path))).read_text()
    assert plot.startswith("<svg")


def test_what_cannot_or_may_not_be_compared_is_told(machine: Machine) -> None:
    for arguments, said in (
        (("base", "poetry"), "no model is called 'poetry': write one of base, champion"),
        (("base", "paid"), "its key is not set: export TEST_NO_SUCH_KEY"),
        (("base", "cloud", "--usd", "0.001"), "allow more with --usd"),
        (("base", "cloud", "--agent", "private"), "private is private: its items are not sent to cloud"),
        (("base", "base", "--agent", "nobody"), "no agent is called 'nobody'"),
    ):
        done = machine.compare(*arguments)
        assert done.returncode != 0 and said in " ".join(done.stderr.split()), (arguments, done.stderr)
    assert not [1 for _, body, _ in machine.local.asked if body["model"] != "base"]


def test_one_model_by_two_names_is_said_to_be_one(machine: Machine) -> None:
    done = machine.compare("base", "champion", "--agent", "negative")
    assert done.returncode == 0, done.stderr
    assert "base and champion are the same model, base: nothing can differ." in done.stdout
    assert "change +0.000" in done.stdout and machine.chats() == 40


def test_another_local_server_is_asked_itself(machine: Machine) -> None:
    done = machine.compare("base", "other", "--agent", "negative", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["comparison"]["challenger"]["name"] == "other"
    asked = [(path, body["model"]) for path, body, _ in machine.local.asked]
    assert asked.count(("/other/v1/chat/completions", "small")) == 40 == asked.count(("/v1/chat/completions", "base"))


def test_a_cluster_that_is_down_is_no_answer_of_a_model(machine: Machine) -> None:
    machine.env["PAWL_VLLM_PORT"] = "1"
    done = machine.compare("base", "champion", "--agent", "negative")
    assert done.returncode == 1 and "does not answer" in done.stderr
