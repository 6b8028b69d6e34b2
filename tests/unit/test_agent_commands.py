"""`pawl agent`: the list of tasks, and a new agent that works at once."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from pawl.cli import app
from pawl.errors import ConfigError
from pawl.fleet.append_yaml import append, shown
from pawl.fleet.load_yaml import load
from pawl.qe.scaffold import Names, entry, files
from pawl.qe.tasks import names, task_of

NEW = ("ticket_triage_task.py", "ticket_triage.jsonl", "test_ticket_triage.py")
ENTRY = entry("ticket-triage", "ticket_triage.jsonl", "local")


@pytest.fixture
def home(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's folder with a fleet of its own, where Pawl is started."""
    (tmp_path / "fleet.yaml").write_text((root / "infra" / "fleet.yaml").read_text())
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PAWL_FLEET", str(tmp_path / "fleet.yaml"))
    return tmp_path


def run(*words: str) -> str:
    done = CliRunner().invoke(app, ["agent", *words], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


def started(home: Path, *command: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "PAWL_STANDIN_URL": "http://127.0.0.1:1"}
    return subprocess.run([sys.executable, *command], cwd=home, env=env, capture_output=True, text=True, timeout=120)


def test_tasks_are_listed_with_kinds_and_a_sentence() -> None:
    lines = run("tasks").splitlines()
    assert [line.split()[0] for line in lines[:-1]] == list(names())
    for name, line in zip(names(), lines, strict=False):
        assert all(kind in line for kind in task_of(name).kinds) and line.endswith("."), line
    assert "cannot be loaded" not in "".join(lines) and "pawl agent new" in lines[-1]


def test_a_new_agent_works_at_once(home: Path) -> None:
    before = (home / "fleet.yaml").read_text()
    told = run("new", "ticket-triage")
    assert all((home / name).is_file() for name in NEW)
    assert (home / "fleet.yaml").read_text() == before and "task: ticket_triage_task:TicketTriageTask" in told
    done = started(home, "-m", "pytest", "-q", "-p", "no:cacheprovider", NEW[2])
    assert done.returncode == 0 and "2 passed" in done.stdout, done.stdout
    # And its test can fail: a grade that does not look at the answer is told.
    module = home / NEW[0]
    module.write_text(module.read_text().replace("float(said == truth)", "1.0"))
    done = started(home, "-m", "pytest", "-q", "-p", "no:cacheprovider", NEW[2])
    assert done.returncode == 1 and "ContractBroken" in done.stdout and "it must score 0" in done.stdout


def test_with_write_the_fleet_has_it_and_pawl_finds_its_task(home: Path) -> None:
    run("new", "ticket-triage", "--write")
    (spec,) = (a for a in load(home / "fleet.yaml", names()).agents if a.name == "ticket-triage")
    assert spec.task == "ticket_triage_task:TicketTriageTask" and spec.source.location == "ticket_triage.jsonl"
    code = (
        "from pawl import bootstrap; from pawl.settings import Settings; from pawl.qe.tasks import task_of\n"
        "agent = bootstrap.fleet(Settings()).agent('ticket-triage')\n"
        "print(len(task_of(agent.task).items(agent.source)))"
    )
    done = started(home, "-P", "-c", code)  # -P: nothing is on the path but what is installed
    assert done.stdout.strip() == "9", done.stderr


def test_nothing_is_overwritten_and_nothing_is_left_half_done(home: Path) -> None:
    (home / NEW[2]).write_text("mine")
    with pytest.raises(ConfigError, match=r"test_ticket_triage\.py exists already"):
        run("new", "ticket-triage", "--write")
    assert (home / NEW[2]).read_text() == "mine" and not (home / NEW[0]).exists()
    assert "ticket-triage" not in (home / "fleet.yaml").read_text()
    append(home / "fleet.yaml", entry("twice", "x", "local"), names())
    with pytest.raises(ConfigError, match="is called twice already"):
        append(home / "fleet.yaml", entry("twice", "x", "local"), names())
    (home / "fleet.yaml").write_text("agents: 7\n")
    with pytest.raises(ConfigError):
        run("new", "other", "--write")
    assert not (home / "other_task.py").exists() and sorted(p.name for p in home.iterdir()) == ["fleet.yaml", NEW[2]]


@pytest.mark.parametrize("name", ["Ticket", "a b", "../a", "1a", "functional-negative", "generic", "a"])
def test_names_that_no_agent_can_have_are_refused(home: Path, name: str) -> None:
    done = CliRunner().invoke(app, ["agent", "new", name])
    assert done.exit_code == 2 and sorted(p.name for p in home.iterdir()) == ["fleet.yaml"]


def test_help_teaches_by_an_example() -> None:
    told = " ".join(run("new", "--help").split())
    assert "pawl agent new ticket-triage --write" in told and "overwrites none" in told


@pytest.mark.parametrize("name", ["none", "class", "ab-1-c"])
def test_names_of_files_and_classes_are_python(name: str) -> None:
    made = files(name)
    assert Names(name).task.replace(":", ".").replace(".", "").isidentifier()
    for file, text in made.items():
        if file.endswith(".py"):
            compile(text, file, "exec")
            assert "$" not in text


LISTS = [
    "# top\nbase_model: {source: a, served_name: base}  # beside\n\nupstreams:\n  local:\n    preset: vllm\n\nagents:\n"
    "  # the first\n  - name: one\n    task: generic   # no oracle\n",
    "base_model: {source: a, served_name: base}\nupstreams:\n  local: {preset: 'vllm'}\nagents:\n- name: one\n"
    "  task: generic\n# the end\n",
]


@pytest.mark.parametrize("text", LISTS)
def test_what_stands_in_the_file_stays(tmp_path: Path, text: str) -> None:
    path = tmp_path / "fleet.yaml"
    path.write_text(text)
    path.chmod(0o640)
    append(path, ENTRY, names())
    after = path.read_text()
    assert [a.name for a in load(path, names()).agents] == ["one", "ticket-triage"]
    left = iter(after.splitlines())
    assert all(any(line == other for other in left) for line in text.splitlines()), "every old line, in its order"
    assert len(after.splitlines()) == len(text.splitlines()) + len(shown(ENTRY).splitlines())
    assert path.stat().st_mode & 0o777 == 0o640 and len(list(tmp_path.iterdir())) == 1
