"""The least that keeps generated code in: what is demanded is had, or nothing is graded and nothing counts as zero.

A machine that has the guard alone is made by taking namespaces and programs away from a process.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from pawl import bootstrap
from pawl.cli import app
from pawl.errors import ConfigError
from pawl.evaluation.runner import answer_items
from pawl.fleet.load_yaml import load
from pawl.qe.item import CannotGrade, Grade, Item
from pawl.qe.tasks import task_of
from pawl.sandbox import BEST_FIRST, available, best, demand, is_enough, strongest
from pawl.settings import Settings
from tests.unit.test_fleet_yaml import GOOD
from tests.unit.test_runner import Server
from tests.unit.test_unit_test_generation import ITEM
from tests.unit.test_unit_test_generation import PLAIN as TESTS

_WEAK = 'echo 0 > /proc/sys/user/max_user_namespaces && PATH=/nonexistent exec "$@"'


@pytest.fixture(autouse=True)
def undemanding() -> Iterator[None]:
    yield
    demand(None)
    available.cache_clear()


@pytest.fixture
def without_bwrap(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    available.cache_clear()


def fleet(tmp_path: Path, least: str | None) -> Path:
    path = tmp_path / "fleet.yaml"
    path.write_text(GOOD + (f"sandbox: {{least: {least}}}\n" if least else ""))
    return path


def on_a_weak_machine(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    line = ["unshare", "--user", "--map-root-user", "sh", "-c", _WEAK, "sh", sys.executable, "-c", code, *arguments]
    done = subprocess.run(line, capture_output=True, text=True, timeout=60, env={**os.environ, "PYTHONPATH": "src"})
    if "unshare" in done.stderr or "max_user_namespaces" in done.stderr:
        pytest.skip(f"skipped: no weak machine can be made here: {done.stderr.strip()[-100:]}")
    assert done.returncode == 0, done.stderr
    return done


def test_stronger_levels_are_enough_and_weaker_ones_are_not() -> None:
    kept = {least: [lv for lv in BEST_FIRST if is_enough(lv, least)] for least in (*BEST_FIRST, None)}
    assert kept == {
        "bubblewrap": ["bubblewrap"],
        "namespaces": ["bubblewrap", "namespaces"],
        "guard": list(BEST_FIRST),
        None: list(BEST_FIRST),
    }


def test_the_fleet_says_what_is_demanded(tmp_path: Path, without_bwrap: None) -> None:
    assert load(fleet(tmp_path, "namespaces")).sandbox.least == "namespaces"
    bootstrap.fleet(Settings(home=tmp_path, fleet=fleet(tmp_path, "bubblewrap")))
    with pytest.raises(CannotGrade, match=r"least: bubblewrap .*install bubblewrap \(apt-get install bubblewrap"):
        best()
    bootstrap.fleet(Settings(home=tmp_path, fleet=fleet(tmp_path, None)))
    assert best() == strongest()
    with pytest.raises(ConfigError, match=r"line 7: sandbox\.least: .*'bubblewrap', 'namespaces' or 'guard'"):
        load(fleet(tmp_path, "chroot"))


@pytest.mark.parametrize("answer", [TESTS, "def test_a():\n    assert size(0) == 'large'", "no Python at all", ""])
def test_below_it_no_answer_has_a_grade_not_even_a_bad_one(without_bwrap: None, answer: str) -> None:
    task = task_of("unit-test-generation")
    assert task.grade(ITEM.messages, answer) is not None
    demand("bubblewrap")
    with pytest.raises(CannotGrade, match="install bubblewrap"):
        task.grade(ITEM.messages, answer)


def graded(item: Item, said: str) -> Grade | None:
    return task_of("unit-test-generation").grade(item.messages, said)


def test_below_it_items_of_an_evaluation_are_invalid_and_never_zero(without_bwrap: None) -> None:
    server = Server()
    try:
        for least, invalid in ((None, False), ("bubblewrap", True)):
            demand("bubblewrap" if least else None)
            (found,) = answer_items(
                [ITEM],
                "m",
                server.url,
                max_tokens=9,
                model_hash="h",
                grade=graded,
            )
            assert (found.score is None) == invalid
            assert ("install bubblewrap" in found.problem) == invalid and found.completion
    finally:
        server.stop()


def test_coverage_is_refused_as_well(without_bwrap: None, root: Path) -> None:
    from pawl.fleet.source import TaskSourceSpec

    task = task_of("coverage-analysis")
    rows = TaskSourceSpec(kind="jsonl", location=str(root / "tests" / "data" / "python_problems.jsonl"))
    item = task.items(rows)[0]
    assert task.grade(item.messages, "{}", item.truth) is not None
    demand("bubblewrap")
    for answer in ("{}", '{"lines":[],"branches":[],"calls":[]}'):
        with pytest.raises(CannotGrade, match="install bubblewrap"):
            task.grade(item.messages, answer, item.truth)


def test_the_guard_alone_is_warned_of_once_and_not_where_it_was_asked_for() -> None:
    code = "from pawl.sandbox import *\nassert strongest() == 'guard'\n{}print(best(), best())"
    done = on_a_weak_machine(code.format(""))
    assert done.stdout == "guard guard\n"
    assert done.stderr.count("guard alone") == 1 and "apt-get install bubblewrap" in done.stderr
    assert "guard alone" not in on_a_weak_machine(code.format("demand('guard')\n")).stderr


def test_a_weak_machine_refuses_what_the_fleet_demands(tmp_path: Path) -> None:
    code = "import sys\nfrom pawl.cli import main\nsys.argv = ['pawl', 'fleet', 'check']\nmain()"
    said = {}
    for least in ("namespaces", None):
        environment = f"import os\nos.environ['PAWL_FLEET'] = {str(fleet(tmp_path, least))!r}\n"
        said[least] = on_a_weak_machine(environment + code).stdout
    assert "here: guard; the least that will do: namespaces" in said["namespaces"]
    assert "cannot be graded here: install bubblewrap" in said["namespaces"]
    assert "here: guard; the least that will do: not given" in said[None]
    assert "does not stop an attack: install bubblewrap" in said[None]


def test_the_check_of_the_fleet_tells_the_level(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PAWL_FLEET", str(fleet(tmp_path, "guard")))
    done = CliRunner().invoke(app, ["fleet", "check"], catch_exceptions=False)
    assert f"Sandbox for generated code here: {strongest()}; the least that will do: guard.\n" in done.stdout
