"""The images' Dockerfile and the workflows, as far as that can be told without building: pinned, non-root, complete."""

from __future__ import annotations

import re
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
DOCKERFILE = (ROOT / "infra" / "images" / "Dockerfile").read_text()
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
# Whose programs may run in the workflows, each at one commit with the version it has beside it.
ACTIONS = {"actions/checkout", "actions/upload-artifact", "anchore/sbom-action", "aquasecurity/trivy-action"}


def instructions() -> list[tuple[str, str]]:
    """(instruction, what follows) in the file's order, lines joined and comments left out."""
    text = re.sub(r"^\s*#.*\n", "", DOCKERFILE, flags=re.M)
    lines = re.sub(r"\\\n", " ", text).splitlines()
    return [(line.split()[0], line.split(maxsplit=1)[1]) for line in lines if line.strip()]


def stages() -> dict[str, str]:
    """What each stage is made from."""
    found = {}
    for kind, rest in instructions():
        if kind == "FROM":
            base, _, name = rest.partition(" AS ")
            found[name] = base
    return found


def test_the_base_is_one_exact_version_that_can_be_replaced() -> None:
    made = stages()
    assert {"cpu", "ci", "gpu"} <= made.keys()
    assert {base for base in made.values() if base not in made} == {"${PYTHON}"}
    assert re.search(r"^ARG PYTHON=python:3\.11\.\d+-slim-bookworm$", DOCKERFILE, re.M)


@pytest.mark.parametrize("target", ["cpu", "ci", "gpu"])
def test_it_does_not_run_as_root(target: str) -> None:
    users: dict[str, str] = {}
    name, made = "", stages()
    for kind, rest in instructions():
        if kind == "FROM":
            name = rest.partition(" AS ")[2]
            users[name] = users.get(made[name], "root")
        elif kind == "USER":
            users[name] = rest
    assert users[target] == "10001:10001"


def test_what_is_copied_is_there_and_reaches_the_build() -> None:
    let_in = [line[1:] for line in ignored() if line.startswith("!")]
    for kind, rest in instructions():
        if kind == "COPY" and "--from" not in rest:
            for source in rest.split()[:-1]:
                assert (ROOT / source).exists(), source
                assert any(source == wanted or source.startswith(wanted) for wanted in let_in), source
    assert ignored()[0] == "*"  # what is not named stays outside: data, keys, the environment, .git
    assert "infra/compose/.env" in ignored() and "infra/compose/tls" in ignored()


def ignored() -> list[str]:
    text = (ROOT / "infra" / "images" / "Dockerfile.dockerignore").read_text()
    return [line for line in text.splitlines() if line and not line.startswith("#")]


def test_it_installs_what_the_locks_say() -> None:
    makefile = (ROOT / "Makefile").read_text()
    (uv,) = re.findall(r"^UV_VERSION := (\S+)$", makefile, re.M)
    assert f"ARG UV_VERSION={uv}\n" in DOCKERFILE
    synced = [rest for kind, rest in instructions() if kind == "RUN" and "uv pip sync" in rest]
    locks = [set(re.findall(r"[\w/]+\.txt", line)) for line in synced]
    assert locks == [
        {"requirements/core.txt", "requirements/model.txt"},
        {"requirements/gpu.txt", "requirements/model.txt"},
    ]
    for lock in set().union(*locks):
        wanted = [x for x in (ROOT / lock).read_text().splitlines() if x and not x.startswith("#")]
        assert wanted and all("==" in x for x in wanted), lock


def test_what_it_runs_is_there() -> None:
    texts = [
        DOCKERFILE,
        *(p.read_text() for p in (ROOT / "infra").rglob("*.y*ml")),
        *(p.read_text() for p in WORKFLOWS),
    ]
    modules = {m for text in texts for m in re.findall(r"python[\"']?,? [\"']?-m[\"']?,? [\"']?([a-z_.]+)", text)}
    assert {"pawl.cli", "pawl.serving.start_vllm", "infra.demo"} <= modules
    for module in modules - {"mlflow", "prefect"}:
        assert find_spec(module) is not None, module


def workflows() -> dict[str, dict[str, Any]]:
    return {path.name: yaml.safe_load(path.read_text()) for path in WORKFLOWS}


def test_workflows_run_only_named_programs_at_one_commit() -> None:
    used = [line for path in WORKFLOWS for line in re.findall(r"uses: (.+)", path.read_text())]
    assert used
    for line in used:
        found = re.fullmatch(r"([\w-]+/[\w-]+)@[0-9a-f]{40} # v\d+\.\d+\.\d+", line)
        assert found and found[1] in ACTIONS, line


def test_workflows_may_only_read_and_build_targets_that_exist() -> None:
    for name, workflow in workflows().items():
        assert workflow["permissions"] == {"contents": "read"}, name
        for job in workflow["jobs"].values():
            assert job["timeout-minutes"] <= 90
            targets = set(job.get("strategy", {}).get("matrix", {}).get("target", []))
            for step in job["steps"]:
                targets |= set(re.findall(r"--target (\w+)", step.get("run", "")))
                # What others wrote into a pull request is never part of a command.
                assert not re.search(r"\$\{\{ *(github\.event|github\.head_ref|inputs)", step.get("run", ""))
            assert targets <= stages().keys(), (name, targets)


def test_the_fleet_runs_without_a_network() -> None:
    (job,) = workflows()["fleet.yml"]["jobs"].values()
    runs = [run for step in job["steps"] for run in step.get("run", "").split("\n") if "docker run" in run]
    assert len(runs) == 2 and all("--network none" in run and "--read-only" in run for run in runs)
    # True: YAML's word for `on`.
    assert "pull_request" in workflows()["fleet.yml"][True]  # type: ignore[index]


def test_no_image_names_the_registry_it_comes_from() -> None:
    paths = [p for p in (ROOT / "infra").rglob("*") if p.suffix in (".yaml", ".yml", ".json") or p.name == "Dockerfile"]
    for path in paths:
        for image in re.findall(r"(?:image:|\"image\", \"default\":|FROM) [\"']?([\w./:${}-]+)", path.read_text()):
            first, slash, _ = image.partition("/")
            assert not slash or not re.search(r"[.:]", first), (path, image)
