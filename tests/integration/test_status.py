"""`pawl status` beside replicas that speak vLLM's API: what must be there, what is there, and what is not."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pawl.fleet.spec import RolloutSpec
from pawl.rollout.control import Request
from pawl.rollout.control_sqlite import SqliteControl
from pawl.rollout.route import Arm
from pawl.rollout.state import Rollout
from pawl.settings import Settings
from tests.vllm_stand_in import Replica

AGENT = "functional-negative"


@pytest.fixture
def pair() -> Iterator[tuple[Replica, Replica]]:
    both = (Replica(), Replica())
    yield both
    for one in both:
        one.kill()


def local(name: str) -> Arm:
    return Arm(name, "local", name, "local")


def test_desired_and_actual_state_side_by_side(tmp_path: Path, root: Path, pair: tuple[Replica, Replica]) -> None:
    settings = Settings(home=tmp_path)
    control, folder = SqliteControl(settings.control_db), settings.adapters_dir.resolve()
    control.save_rollout(
        Rollout(id="r", agent=AGENT, version="2", champion=local("fn-v1"), challenger=local("fn-v2"), stage="20",
                opened_at=1.0, stage_since=1.0, spec=RolloutSpec())
    )  # fmt: skip
    control.ask(
        Request(agent=AGENT, version="3", adapter="fn-v3", adapter_sha256="3", evidence="abcdef", asked_at=time.time(),
                expires=time.time() + 7200)
    )  # fmt: skip
    for replica in pair:
        replica.loaded = {"fn-v1": str(folder / "fn-v1"), "old": str(folder / "old")}
    pair[0].loaded["fn-v2"] = str(folder / "fn-v2")
    env = os.environ | {
        "PAWL_HOME": str(tmp_path), "PAWL_FLEET": str(root / "infra" / "fleet.yaml"),
        "PAWL_VLLM_URLS": ",".join([*(r.url for r in pair), "http://127.0.0.1:9"]),
    }  # fmt: skip

    def pawl(*args: str) -> str:
        command = [sys.executable, "-m", "pawl.cli", "status", *args]
        done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        return done.stdout

    said = pawl()
    assert "challenger fn-v2 at 20 % (20)" in said and "version 3 waits for approval, expires in 2 h" in said
    assert "2 of 3 replicas up" in said and "http://127.0.0.1:9  down: " in said
    assert "fn-v1  on every replica  champion of" in said
    assert f"fn-v2  MISSING on {pair[1].url}" in said and "goes when it is idle: old" in said
    found = json.loads(pawl("--json"))
    assert found["agents"][0]["rollout"] == {"id": "r", "stage": "20", "held": False}
    assert [a["on"] for a in found["cluster"]["adapters"]] == [2, 1]
    assert all(set(r.loaded) >= {"fn-v1", "old"} for r in pair), "to look changes nothing"
